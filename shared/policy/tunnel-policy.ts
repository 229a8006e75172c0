import { z } from 'zod';
import { CulvertError } from '../errors/codes.ts';

/**
 * What the owner of a tunnel says of how it is served. Each rule is one optional key; an absent key is the rule's default.
 *
 * Unknown keys are refused, never ignored: a node that skipped a rule which it does not know would let in whom that rule keeps
 * out. For the same reason a stored policy that cannot be read closes its tunnel (see `decodePolicy`).
 */

/**
 * How requests are spread over the endpoints of a tunnel. `least-loaded`: the less loaded of two random ones, of those on the
 * node that the request came to before others. `round-robin`: those in turn. `sticky`: a visitor stays with the agent process
 * that served the first request, wherever it is connected, as long as it is there.
 */
export const BALANCES = ['least-loaded', 'round-robin', 'sticky'] as const;
export type Balance = (typeof BALANCES)[number];

const Schema = z.strictObject({
  /** Default `least-loaded`. */
  balance: z.enum(BALANCES).optional(),
});
export type TunnelPolicy = Readonly<z.infer<typeof Schema>>;

/** The rules that there are. */
export const POLICY_KEYS: readonly string[] = Object.keys(Schema.shape);

/** A policy in JSON, characters: it travels in one control message and is stored with every endpoint. */
export const MAX_POLICY_LENGTH = 16_384;

/** @throws CulvertError `invalid_config` that names the rule at fault */
export function parsePolicy(input: unknown): TunnelPolicy {
  const result = Schema.safeParse(input);
  if (!result.success) {
    const issue = result.error.issues[0];
    const where = issue?.path.join('.') ?? '';
    throw new CulvertError(
      'invalid_config',
      `the tunnel's policy${where === '' ? '' : `: ${where}`}: ${issue?.message ?? 'invalid'}`,
    );
  }
  const policy = Object.freeze(result.data);
  if (encodePolicy(policy).length > MAX_POLICY_LENGTH) {
    throw new CulvertError(
      'invalid_config',
      `the tunnel's policy is longer than ${MAX_POLICY_LENGTH} characters of JSON`,
    );
  }
  return policy;
}

/** JSON in which equal policies look the same, when both were parsed: parsing brings the keys into the schema's order. */
export function encodePolicy(policy: TunnelPolicy): string {
  return JSON.stringify(policy);
}

/** Undefined for what this version cannot read, such as a rule of a later one: nobody may then be let in. */
export function decodePolicy(json: string): TunnelPolicy | undefined {
  try {
    return Object.freeze(Schema.parse(JSON.parse(json)));
  } catch {
    return undefined;
  }
}
