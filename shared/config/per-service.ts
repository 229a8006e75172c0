import { namedEntries } from './named-entries.ts';
import { parseTunnelName } from './net-values.ts';
import { Refusal, type ValueType, valueType } from './option.ts';
import { quote } from './values.ts';

/** A value for each local service of an agent: its own, or the one that stands for all. */
export interface PerService<T> {
  /** For services without one of their own. */
  readonly all: T | undefined;
  /** By the tunnel's name. */
  readonly named: ReadonlyMap<string, T>;
}

export function valueFor<T>(values: PerService<T> | undefined, name: string): T | undefined {
  return values?.named.get(name) ?? values?.all;
}

/** `value`, or `name=value` pairs with commas, or both (`value,name=value`); in a file also a list or a map. */
export function perService<T>(type: ValueType<T>): ValueType<PerService<T>> {
  return valueType<PerService<T>>({
    placeholder: type.placeholder === undefined ? '<[name=]value,…>' : `<[name=]${type.placeholder.slice(1, -1)},…>`,
    expects: `${type.expects}, for all services, or name=value pairs`,
    list: true,
    decode: (raw) => {
      let all: T | undefined;
      const named = new Map<string, T>();
      for (const [name, written] of namedEntries(raw)) {
        const value = type.schema.safeDecode(written);
        if (!value.success) return new Refusal(value.error.issues[0]?.message ?? `${quote(written)} is not valid`);
        if (name === undefined) {
          if (all !== undefined) return new Refusal('has two values for all services: write name=value');
          all = value.data;
          continue;
        }
        const ascii = parseTunnelName(name);
        if (ascii instanceof Refusal) return ascii;
        if (named.has(ascii)) return new Refusal(`the name ${quote(ascii)} comes twice`);
        named.set(ascii, value.data);
      }
      return all === undefined && named.size === 0
        ? new Refusal('is empty: remove the option instead')
        : { all, named };
    },
    encode: ({ all, named }) => [
      ...(all === undefined ? [] : [type.schema.encode(all)]),
      ...Array.from(named, ([name, value]) => `${name}=${type.schema.encode(value)}`),
    ],
  });
}
