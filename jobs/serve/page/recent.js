// A map that keeps what was wanted last, and drops the rest.

export class Recent extends Map {
  /** `most`: of all entries together, each of which counts by its `size`, or as 1. The last one always stays. */
  constructor(most) {
    super();
    this.most = most;
  }

  get(key) {
    const value = super.get(key);
    if (value !== undefined) this.set(key, value);
    return value;
  }

  set(key, value) {
    let total = 0;
    this.delete(key);
    super.set(key, value);
    for (const [one, { size = 1 }] of [...this].reverse()) {
      total += size;
      if (total > this.most && one !== key) this.delete(one);
    }
    return this;
  }
}
