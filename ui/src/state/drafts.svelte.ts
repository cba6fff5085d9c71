/** What is written but not sent, for each conversation, while the page is open. */

export class Draft {
  text = $state("");
  images: string[] = $state.raw([]);
}

class Drafts {
  #byChat = new Map<string | null, Draft>();

  /** The draft of conversation `id`; null is the new one. */
  of(id: string | null): Draft {
    const known = this.#byChat.get(id);
    if (known) return known;
    const fresh = new Draft();
    this.#byChat.set(id, fresh);
    return fresh;
  }
}

export const drafts = new Drafts();
