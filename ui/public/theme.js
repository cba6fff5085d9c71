// Before the first paint: the colours chosen last time, so that nothing flashes. state/theme.svelte.ts goes on from here.
(function () {
  var choice = null;
  try {
    choice = localStorage.getItem("quorum.theme");
  } catch (error) {
    choice = null;
  }
  var dark = choice === "dark" || (choice !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
