import { type Address, formatAddress, parseTarget } from './net-values.ts';
import { Refusal, type ValueType, valueType } from './option.ts';
import { quote } from './values.ts';

/** Where a program takes commands: a Unix socket by its path, or a TCP address. */
export type RuntimeAddress = { readonly path: string } | Address;

/** A socket of HAProxy's runtime API. A value with a slash is a path. */
export function runtimeAddress(): ValueType<RuntimeAddress> {
  const expects = 'the path of a Unix socket or host:port';
  return valueType({
    placeholder: '<socket>',
    expects,
    decode: (raw) => {
      if (typeof raw !== 'string') return new Refusal(`${quote(raw)} is not ${expects}`);
      if (raw.includes('/')) return { path: raw };
      const address = /:\d+$/.test(raw) ? parseTarget(raw, 1) : undefined;
      return address ?? new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: formatRuntimeAddress,
  });
}

export function formatRuntimeAddress(address: RuntimeAddress): string {
  return 'path' in address ? address.path : formatAddress(address);
}
