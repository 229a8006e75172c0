import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { VisitorProtocol } from './exchange.ts';
import { forwardHeaders } from './hygiene.ts';
import { nextRequestId } from './request-id.ts';
import type { ReadRequest } from './validate.ts';
import type { Scheme, VisitorPeer } from './visitor-connection.ts';

/** The request half of an exchange: what is known before anything is answered. */
export abstract class VisitorRequest {
  readonly method: string;
  readonly target: string;
  readonly host: string;
  readonly tunnelName: string | undefined;
  readonly headers: FlatHeaders;
  readonly requestId: string;
  readonly accept: string | undefined;
  readonly remoteAddress: string;
  readonly protocol: VisitorProtocol;
  readonly scheme: Scheme;
  readonly isUpgrade: boolean;
  readonly hasBody: boolean;
  readonly contentLength: number | undefined;

  constructor(request: ReadRequest, peer: VisitorPeer, protocol: VisitorProtocol, upgrade: string | undefined) {
    const { fields } = request;
    this.method = request.method;
    this.target = request.target;
    this.host = fields.host ?? '';
    this.tunnelName = request.tunnelName;
    // A refused request goes nowhere, and its host may be anything.
    this.headers = fields.fault === undefined ? forwardHeaders(fields, peer, upgrade) : [];
    this.requestId = fields.requestId ?? nextRequestId();
    this.accept = fields.accept;
    this.remoteAddress = fields.forwardedFor === undefined ? peer.address : peer.visitorAddress(fields.forwardedFor);
    this.protocol = protocol;
    this.scheme = fields.forwardedProto ?? peer.scheme;
    this.isUpgrade = upgrade !== undefined;
    this.hasBody = fields.hasBody;
    this.contentLength = fields.contentLength;
  }
}
