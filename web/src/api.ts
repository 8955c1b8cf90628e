// The hub's HTTP API as the page uses it: types of the answers, one fetch, errors with their remedy.

export type Scalar = number | string | boolean | null;

/** One value of one point at one time. `special` names NaN and the infinities, whose `v` is null. */
export interface Reading {
  t: string;
  v: Scalar;
  q: string;
  special?: string;
}

export interface Point {
  path: string;
  unit: string;
  type: string;
  writable: boolean;
  min: number | null;
  max: number | null;
  description: string;
  agent: string;
  device: string | null;
  metric: string;
  last: Reading | null;
}

export interface Plant {
  enterprise: string;
  site: string;
  hub_id: string;
  version: string;
  now: string;
  commands_enabled: boolean;
}

export interface History {
  path: string;
  samples: Reading[];
  thinned: boolean;
  truncated: boolean;
}

export interface Agent {
  agent: string;
  online: boolean;
  foreign: boolean;
  since: string | null;
  last_message: string | null;
  last_receipt: string | null;
  backlog: number | null;
  version: string;
  /** Percent of its outbox that is used, as of its last birth; null for foreign nodes. */
  outbox_used: number | null;
  births: number;
  rebirths: number;
  gaps: number;
  /** How far its clock was ahead of the hub's at its last message; null for foreign nodes. */
  clock_ahead_ms: number | null;
  is_off_clock: boolean;
  devices: Device[];
}

export interface Device {
  name: string;
  online: boolean;
  /** How the agent says it is; null for foreign nodes and older programs. */
  health: DeviceHealth | null;
}

export interface DeviceHealth {
  as_of: string;
  driver: string;
  state: "connecting" | "up" | "down";
  since: string;
  last_read: string | null;
  error: string | null;
  is_off_clock: boolean;
  requests: number;
  failed: number;
  requests_per_second: number;
  /** Null where the driver sends no requests. */
  p50_ms: number | null;
  p99_ms: number | null;
  points: { good: number; uncertain: number; bad: number; stale: number; unread: number };
}

/** What a device said of a point, and what came of it, as its agent says. */
export interface Look {
  path: string;
  address: string;
  raw_type: string;
  raw: string | null;
  scale: number | null;
  offset: number | null;
  min: number | null;
  max: number | null;
  dead_band: number | null;
  value: string | null;
  quality: string | null;
  time: string | null;
}

export interface Health {
  status: "ok" | "degraded" | "failing";
  reasons: string[];
  version: string;
}

export interface Account {
  count: number;
  checksum: string;
}

/** How the hub's account of one epoch compares with what the agent said of it. */
export type EpochVerdict = "balanced" | "in-flight" | "mismatch" | "unreported";

export interface Epoch {
  epoch: string;
  verdict: EpochVerdict;
  received: Account;
  records_received: number;
  records_missing: number;
  records_lost: number;
  verified_end: number;
  quarantined: [number, number][];
  history: number;
  /** By sink; null while it is too far behind to be counted. */
  exported: Record<string, number | null>;
  devices: DeviceCounts[];
  mismatch: string | null;
  reported: { first_held: number; end: number; before: Account; total: Account } | null;
}

/** What became of everything that one device read. */
export interface DeviceCounts {
  device: string;
  read: number;
  dead_band: number;
  quarantined: number;
  made: number;
  accepted: number | null;
  received: number;
}

export interface Reconcile {
  hub_id: string;
  log: { epoch: string; first: number; end: number };
  agents: { agent: string; verdict: EpochVerdict; epochs: Epoch[] }[];
  sinks: { name: string; position: number; lag: number; behind_start: boolean; holder?: string; alarm?: string }[];
}

export interface CommandRecord {
  id: string;
  path: string;
  value: string;
  author: string;
  reason: string;
  at: string;
  outcome: string;
  read_back: string | null;
}

export interface BrokerClient {
  client_id: string;
  identity: string;
  peer: string | null;
  listener: string;
  transport: string;
  version: string;
  login: string;
  connected_s: number;
  expiry_s: number;
  filters: string[];
  filters_count: number;
  messages_in: number;
  messages_out: number;
  bytes_in: number;
  bytes_out: number;
  dropped: number;
  queued: number;
  in_flight: number;
  refused: number;
  waiting_for: "data" | "acknowledgements" | "socket" | "host" | "disk" | "journal" | "connection";
  stuck: string | null;
  stuck_s: number | null;
}

export interface BrokerState {
  now: string;
  connected: number;
  sessions: number;
  subscriptions: number;
  retained: number;
  retained_bytes: number;
  received: number;
  dropped: number;
  out_bytes: number;
  journal_bytes: number;
  journal_bytes_max: number;
  access_problem: string | null;
  tls: { loaded_at: string; problem: string | null; certificates: { file: string; subject: string; names: string[]; not_after: string; days_left: number; is_ending: boolean }[] }[];
  stuck: number;
  found: number;
  clients: BrokerClient[];
}

/** A payload as the hub understands it: JSON and text as they were sent, other bytes as hex. */
export interface Payload {
  kind: "sparkplug" | "json" | "text" | "hex" | "empty";
  bytes: number;
  cut: boolean;
  text?: string;
  problem?: string;
  sparkplug?: { timestamp: string | null; seq: number | null; metrics_count: number; metrics: Metric[] };
}

export interface Metric {
  name?: string;
  alias?: number | string;
  type?: string;
  v: Scalar;
  special?: string;
  t?: string;
  q: string;
  historical: boolean;
}

export interface RetainedPage {
  messages: { topic: string; qos: number; payload: Payload }[];
  next: string | null;
}

/** What the hub answered instead: `remedy` says what to do about it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
  ) {
    super(message);
  }
}

const BASE = "/api/v1";

export async function get<T>(path: string, parameters: Record<string, string | number | undefined> = {}, signal?: AbortSignal): Promise<T> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") query.set(key, String(value));
  }
  const text = query.toString();
  return answer<T>(await reach(`${BASE}${path}${text ? `?${text}` : ""}`, { signal }));
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  return answer<T>(
    await reach(`${BASE}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-forebay": "1" },
      body: JSON.stringify(body),
    }),
  );
}

async function reach(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The hub does not answer.", "Look whether it runs; the page tries again by itself.");
  }
}

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) {
    return (response.status === 204 ? undefined : await response.json()) as T;
  }
  let error: { code?: string; message?: string; remedy?: string } = {};
  try {
    error = ((await response.json()) as { error?: typeof error }).error ?? {};
  } catch {
    // not JSON: the status has to do
  }
  throw new ApiError(response.status, error.code ?? "http", error.message ?? `HTTP ${response.status}`, error.remedy ?? "");
}

/** Every point, page by page; `onPage` sees them as they come. */
export async function everyPoint(onPage: (points: Point[]) => void, signal: AbortSignal): Promise<void> {
  let after: string | undefined;
  do {
    const page = await get<{ points: Point[]; next: string | null }>("/points", { limit: 2000, after }, signal);
    onPage(page.points);
    after = page.next ?? undefined;
  } while (after !== undefined);
}
