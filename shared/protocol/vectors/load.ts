import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** The golden vectors beside this file, checked while they are read: a misspelt field must not turn a check off. */

const hex = z.string().regex(/^(?:[0-9a-f]{2})*$/);
const headers = z.array(z.string());
const flags = z.array(z.enum(['ACK', 'END_STREAM', 'RESET', 'HEAD', 'TRAILERS', 'CALL']));
const described = { name: z.string(), description: z.string(), hex };
const frame = { type: z.string(), flags, streamId: z.int() };
const request = z.strictObject({
  method: z.string(),
  target: z.string(),
  tunnel: z.string(),
  meta: z.string(),
  headers,
});
const response = z.strictObject({ status: z.int(), reason: z.string(), headers });

const FrameVector = z.strictObject({
  ...described,
  /** Where the bytes are cut, ascending. */
  chunks: z.array(z.int()).optional(),
  frame: z.union([
    z.strictObject({ ...frame, payload: hex }),
    z.strictObject({ ...frame, json: z.record(z.string(), z.json()) }),
    z.strictObject({ ...frame, request, body: hex }),
    z.strictObject({ ...frame, response, body: hex }),
    z.strictObject({ ...frame, trailers: headers }),
    z.strictObject({ ...frame, close: z.strictObject({ code: z.string(), message: z.string() }).nullable() }),
    z.strictObject({ ...frame, credit: z.int() }),
  ]),
});
export type FrameVector = z.infer<typeof FrameVector>;

const ExtensionVector = z.strictObject({
  ...described,
  frame: z.strictObject({ type: z.int(), flagBits: z.int(), streamId: z.int(), ignored: z.literal(true) }),
});

const role = z.enum(['opener', 'acceptor']);
const FaultVector = z.discriminatedUnion('layer', [
  z.strictObject({ ...described, layer: z.literal('framing'), code: z.string() }),
  z.strictObject({
    ...described,
    layer: z.literal('session'),
    code: z.string(),
    /** Who receives the bytes. An opener has opened stream 1000 and not ended its half. */
    role,
    /** Default true. */
    authenticated: z.boolean().optional(),
  }),
  z.strictObject({ ...described, layer: z.literal('stream'), code: z.string(), role }),
]);

const ExchangeStep = z.strictObject({ from: z.enum(['agent', 'core']), note: z.string(), hex });

export const FRAMES = [...read('control.json', FrameVector), ...read('streams.json', FrameVector)];
export const EXTENSIONS = read('extensions.json', ExtensionVector);
export const FAULTS = read('faults.json', FaultVector);
export const EXCHANGE = read('exchange.json', ExchangeStep);

function read<T>(file: string, schema: z.ZodType<T>): T[] {
  return z.array(schema).parse(JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8')));
}
