import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { ByteBudget } from '../../../shared/protocol/budget.ts';
import type { VisitorExchange } from '../edge/exchange.ts';
import type { Router } from '../router/router.ts';

/** What is known of a request when it is over. */
export interface RequestOutcome {
  readonly exchange: VisitorExchange;
  /** The status that the visitor saw, 0 when none was sent. */
  readonly status: number;
  readonly code: ErrorCode | undefined;
  readonly agentId: string | undefined;
  /** Whether another node held the agent. */
  readonly isRelayed: boolean;
  /** Milliseconds from the request's head to the end of the response. */
  readonly duration: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface ProxyOptions {
  readonly router: Router;
  /** Bytes of a request body; 0 means no limit. */
  readonly maxBodySize: number;
  /** Milliseconds without progress in which an agent must bring a response head. */
  readonly responseTimeout: number;
  /** Received bytes of the process. */
  readonly budget: ByteBudget;
  readonly onOutcome: (outcome: RequestOutcome) => void;
}
