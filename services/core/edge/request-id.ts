import { randomBytes } from 'node:crypto';

/** Unique across processes and restarts by 64 random bits; the counter makes each id differ within the process. */
const PREFIX = randomBytes(8).toString('hex');

/** 36^7, so that the counter always has eight characters and ids sort by age within one process. */
let counter = 36 ** 7;

/** A fresh id of 24 characters: cheap and unique, but guessable, so nothing may be authorised by it. */
export function nextRequestId(): string {
  counter += 1;
  return PREFIX + counter.toString(36);
}

/** True for an id from a proxy in front that is fit to be logged and sent on: 1–128 visible ASCII characters. */
export function isRequestId(value: string): boolean {
  if (value.length === 0 || value.length > 128) return false;
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code < 0x21 || code > 0x7e) return false;
  }
  return true;
}
