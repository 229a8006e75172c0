import { namedEntries } from './named-entries.ts';
import { formatAddress, parseAddress, parseTunnelName } from './net-values.ts';
import { Refusal, type Refusal as RefusalType, type ValueType, valueType } from './option.ts';
import { quote } from './values.ts';

/** http and https speak HTTP/1.1; h2c is cleartext HTTP/2 (gRPC), h2 is HTTP/2 over TLS. */
export type LocalScheme = 'http' | 'https' | 'h2c' | 'h2';

/** One service that the agent serves through a tunnel. */
export interface LocalService {
  /** The tunnel's name; empty only until the `subdomain` option has named it. */
  readonly name: string;
  readonly scheme: LocalScheme;
  /** Without brackets. */
  readonly host: string;
  /** 1–65535. */
  readonly port: number;
  /** `scheme://host:port`, for people to read and for the registry's `localAddr`. */
  readonly url: string;
}

const DEFAULT_PORTS: Readonly<Record<LocalScheme, number>> = { http: 80, https: 443, h2c: 80, h2: 443 };

/**
 * `name=url` pairs with commas (in a file also a list or a map), or one URL without a name.
 * A port alone, or host:port, means http.
 */
export function localServices(): ValueType<readonly LocalService[]> {
  return valueType<readonly LocalService[]>({
    placeholder: '<name=url,…>',
    expects: 'a list of name=url such as api=http://localhost:8000, or one URL',
    list: true,
    decode: (raw) => {
      const services: LocalService[] = [];
      for (const [name, target] of namedEntries(raw)) {
        const service = parseService(name, target);
        if (service instanceof Refusal) return service;
        if (services.some((other) => other.name === service.name)) {
          return new Refusal(
            service.name === '' ? 'several services need names: write name=url' : `the name ${quote(name)} comes twice`,
          );
        }
        services.push(service);
      }
      if (services.length === 0) return new Refusal('is empty: write name=url, a port or a URL');
      if (services.length > 1 && services.some((service) => service.name === '')) {
        return new Refusal('several services need names: write name=url for each');
      }
      return services;
    },
    encode: (services) => services.map(({ name, url }) => (name === '' ? url : `${name}=${url}`)),
  });
}

/** @returns the service at `target`, or why it was refused. */
export function parseService(name: string | undefined, target: unknown): LocalService | RefusalType {
  const ascii = name === undefined ? '' : parseTunnelName(name);
  if (ascii instanceof Refusal) return ascii;
  const refused = new Refusal(
    `${quote(target)} is not a local service: write a port, host:port, or a URL with http, https, h2c or h2 and no path`,
  );
  if (typeof target !== 'string' && typeof target !== 'number') return refused;
  const written = String(target);
  const absolute = /^\d+$/.test(written) ? `localhost:${written}` : written;
  const match = /^(?:([a-z0-9+.-]+):\/\/)?([^/]+)\/?$/i.exec(absolute);
  const scheme = (match?.[1] ?? 'http').toLowerCase();
  if (match?.[2] === undefined || !isScheme(scheme)) return refused;
  const address = parseAddress(/:\d+$/.test(match[2]) ? match[2] : `${match[2]}:${DEFAULT_PORTS[scheme]}`);
  if (address === undefined || address.host === '' || address.port === 0) return refused;
  return { name: ascii, scheme, ...address, url: `${scheme}://${formatAddress(address)}` };
}

function isScheme(scheme: string): scheme is LocalScheme {
  return Object.hasOwn(DEFAULT_PORTS, scheme);
}
