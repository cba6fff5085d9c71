/** Requests of keyboard shortcuts to the part of the page that can fulfil them. */

class Keys {
  /** Counts up each time the search of conversations is asked for. */
  searches = $state(0);

  search(): void {
    this.searches += 1;
  }
}

export const keys = new Keys();
