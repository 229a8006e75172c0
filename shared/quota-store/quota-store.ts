/**
 * What the nodes of a cluster share to keep limits together: token buckets that nodes draw on in portions, permits for what goes on at
 * the same time, and what each account has used in a month. Nothing here is asked for while a visitor waits.
 * `quota-store.contract.ts` is the suite that every implementation passes.
 */
export interface QuotaStore {
  /**
   * Settles what was used and draws a portion from each bucket of one account: one atomic step. A bucket that nobody drew on is
   * full. @throws CulvertError `registry_unavailable`
   */
  draw(accountId: string, draws: readonly Draw[]): Promise<readonly Drawn[]>;

  /**
   * Says how many permits this node uses and asks for more or fewer. What it uses always counts, also above the limit.
   * @returns permits that it has until `ttl` is over. @throws CulvertError `registry_unavailable`
   */
  hold(accountId: string, hold: Hold): Promise<number>;

  /**
   * Adds to what an account has used, once for each `sequence` of a source however often it is sent.
   * @returns what the account has used in the month, in all. @throws CulvertError `registry_unavailable`
   */
  addUsage(accountId: string, addition: UsageAddition): Promise<Usage>;

  /** What an account has used in a month. @throws CulvertError `registry_unavailable` */
  usage(accountId: string, month: Month): Promise<Usage>;

  close(): void;
}

/** All amounts are units of the bucket: requests or bytes. */
export interface Draw {
  readonly bucket: string;
  /** Units per second that it fills with. */
  readonly rate: number;
  /** Units that it holds at most. */
  readonly burst: number;
  /** Used since the last draw without having been drawn; below 0: drawn and not needed. */
  readonly used: number;
  /** Units that would be welcome: given while plenty is left. */
  readonly want: number;
  /** Units that are given as long as there are any. */
  readonly need: number;
}

export interface Drawn {
  /** A whole number. */
  readonly granted: number;
  /** What is left; below 0 when more was used than there was. */
  readonly level: number;
}

export interface Hold {
  readonly permit: string;
  /** Who holds: a node. */
  readonly holder: string;
  /** Of all holders together. */
  readonly limit: number;
  readonly inUse: number;
  /** `inUse` and some more, ahead of need. */
  readonly want: number;
  /** Milliseconds until they lapse unless asked for again. */
  readonly ttl: number;
}

declare const brand: unique symbol;
/** A calendar month of UTC, `2026-01`. */
export type Month = string & { readonly [brand]: 'Month' };

export interface Usage {
  readonly requests: number;
  /** Body bytes from visitors. */
  readonly bytesIn: number;
  /** Body bytes to visitors. */
  readonly bytesOut: number;
}

export interface UsageAddition {
  readonly month: Month;
  /** One life of one node. */
  readonly source: string;
  /** Rises with each addition of the source; an addition that was not answered is sent again under its number. */
  readonly sequence: number;
  readonly delta: Usage;
  /** The most that the source knows of: what a store that lost data starts from again. */
  readonly known: Usage;
}

/** Of what is left, the part that one draw may take ahead of need, so that other nodes find some too. */
export const AHEAD_SHARE = 0.25;

/** @param now milliseconds since the Unix epoch */
export function monthOf(now: number): Month {
  return new Date(now).toISOString().slice(0, 7) as Month;
}

/** When the month after the one of `now` begins, milliseconds since the Unix epoch. */
export function nextMonth(now: number): number {
  const date = new Date(now);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1);
}
