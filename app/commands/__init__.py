"""The commands of ``quorum``: one module a family, imported only when it is asked for."""
