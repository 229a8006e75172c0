import { performance } from 'node:perf_hooks';

/** All in milliseconds. */
export interface LivenessOptions {
  /** Time between heartbeats. Default 15,000. */
  readonly heartbeatInterval?: number;
  /** Time without traffic after which the peer counts as dead. Default 30,000. */
  readonly deadAfter?: number;
  /** Silence after which a new stream makes the session prove that it lives. Default 5,000. */
  readonly probeAfter?: number;
  /** Time that a probe may take before other endpoints are preferred. Default 1,000. */
  readonly probeTimeout?: number;
}

/** Round trips that are remembered: two minutes' worth at the default interval. */
const MAX_SAMPLES = 8;
/** Bytes of a heartbeat's payload. */
export const HEARTBEAT_BYTES = 8;

/** Whether the peer of a session is there, and how far away: heartbeats, probes and the time since the last traffic. */
export class Liveness {
  readonly #sendHeartbeat: (payload: Buffer) => void;
  readonly #probeAfter: number;
  readonly #probeTimeout: number;
  #interval: number;
  #deadAfter: number;
  #lastTraffic = performance.now();
  #lastHeartbeat = this.#lastTraffic;
  #number = 0;
  #isUnanswered = false;
  /** When the oldest heartbeat without an answer was sent: a later one must not make the peer look alive again. */
  #unansweredSince = 0;
  /** The last samples, milliseconds, oldest first. */
  #samples: number[] = [];

  constructor(sendHeartbeat: (payload: Buffer) => void, options: LivenessOptions) {
    this.#sendHeartbeat = sendHeartbeat;
    this.#interval = options.heartbeatInterval ?? 15_000;
    this.#deadAfter = options.deadAfter ?? 30_000;
    this.#probeAfter = options.probeAfter ?? 5000;
    this.#probeTimeout = options.probeTimeout ?? 1000;
  }

  /**
   * Milliseconds: the least of the last heartbeats that were answered; 1 before the first. A sample under load holds the
   * time in queues, and windows that grew by it would lengthen those queues (the reason for BBR's windowed minimum, "BBR:
   * Congestion-Based Congestion Control", ACM Queue 2016).
   */
  get roundTrip(): number {
    return this.#samples.length === 0 ? 1 : Math.min(...this.#samples);
  }

  /** False before the first heartbeat was answered. */
  get isMeasured(): boolean {
    return this.#samples.length > 0;
  }

  /** A heartbeat is unanswered for too long: the peer may be dead, though it is too early to say so. */
  get isSuspect(): boolean {
    return this.#isUnanswered && performance.now() - this.#unansweredSince > this.#probeTimeout;
  }

  /** Milliseconds after which `check` is worth calling again. */
  get checkInterval(): number {
    return Math.max(10, Math.min(1000, this.#interval / 4));
  }

  setIntervals(interval: number, deadAfter: number): void {
    this.#interval = interval;
    this.#deadAfter = deadAfter;
  }

  /** Something came from the peer. @param now monotonic milliseconds */
  heard(now: number): void {
    this.#lastTraffic = now;
  }

  /** Sends a heartbeat when one is due. Returns the milliseconds of silence once the peer counts as dead, else 0. */
  check(): number {
    const now = performance.now();
    const silence = now - this.#lastTraffic;
    if (silence > this.#deadAfter) return silence;
    if (now - this.#lastHeartbeat >= this.#interval) this.beat();
    return 0;
  }

  /** Asks the peer for a sign of life; its answer measures the round trip. */
  beat(): void {
    this.#number = (this.#number + 1) % 0x1_0000_0000;
    const payload = Buffer.alloc(HEARTBEAT_BYTES);
    payload.writeUInt32BE(this.#number, 4);
    this.#lastHeartbeat = performance.now();
    if (!this.#isUnanswered) this.#unansweredSince = this.#lastHeartbeat;
    this.#isUnanswered = true;
    this.#sendHeartbeat(payload);
  }

  /** Before a request is trusted to the session: a long silence has to be broken. @param now monotonic milliseconds */
  probeAfterSilence(now: number): void {
    if (!this.#isUnanswered && now - this.#lastTraffic > this.#probeAfter) this.beat();
  }

  /** The peer echoed a heartbeat. */
  acknowledged(payload: Buffer): void {
    if (!this.#isUnanswered || payload.readUInt32BE(4) !== this.#number) return;
    this.#isUnanswered = false;
    this.#samples.push(Math.max(0.05, performance.now() - this.#lastHeartbeat));
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift();
  }
}
