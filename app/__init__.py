"""The desktop shell: window, tray, commands. It knows the router only through ``service``."""
