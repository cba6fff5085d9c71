/** Light or dark, from the setting `theme`; `public/theme.js` does the same before the first paint. */

export type Theme = "system" | "light" | "dark";

const KEY = "quorum.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");
let choice: Theme = "system";

function paint(): void {
  const isDark = choice === "dark" || (choice === "system" && dark.matches);
  document.documentElement.dataset["theme"] = isDark ? "dark" : "light";
}

export function applyTheme(value: unknown): void {
  choice = value === "light" || value === "dark" ? value : "system";
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // Without storage the next start may flash once.
  }
  paint();
}

dark.addEventListener("change", paint);
