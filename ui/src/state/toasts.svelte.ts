/** Short words that pass, and what screen readers are told without showing it. */

export interface Toast {
  id: number;
  text: string;
  tone: "plain" | "bad";
}

const SHOWN_MS = 5000;

class Toasts {
  list: Toast[] = $state.raw([]);
  /** Read aloud, not shown. */
  spoken = $state("");
  #next = 1;

  say(text: string, tone: Toast["tone"] = "plain"): void {
    const id = this.#next++;
    this.list = [...this.list.slice(-2), { id, text, tone }];
    setTimeout(() => this.dismiss(id), tone === "bad" ? SHOWN_MS * 2 : SHOWN_MS);
  }

  dismiss(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  speak(text: string): void {
    this.spoken = text;
  }
}

export const toasts = new Toasts();
