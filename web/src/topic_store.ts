// Topics of the broker as the browser collects them: retained ones first, then whatever is published, by one stream.
import { ApiError, get, type Payload, type RetainedPage } from "./api";

export interface Topic {
  path: string;
  /** Whether the broker holds a retained message for it, as far as was seen. */
  retained: boolean;
  qos: number;
  /** When the last message came; null for one that was there before. */
  time: string | null;
  /** Messages since the browser was opened. */
  count: number;
  /** Per second, smoothed. */
  rate: number;
  payload: Payload;
}

export interface Message {
  id: number;
  time: string;
  qos: number;
  retain: boolean;
  payload: Payload;
}

export type Watch = { state: "connecting" | "live" | "lost" } | { state: "refused"; error: ApiError };

interface Pushed {
  topic: string;
  time: string;
  qos: number;
  retain: boolean;
  count: number;
  payload: Payload;
}

/** Topics that are remembered; what comes beyond is only counted. */
const TOPICS_MAX = 20_000;
/** Messages of the selected topic that are kept. */
const TAIL_MAX = 200;
/** Bytes shown of payloads nobody has selected. */
const OVERVIEW_BYTES = 512;
/** A hidden page gives its stream back, like the live values'. */
const HIDDEN_MS = 20_000;

export class TopicStore {
  private readonly topics = new Map<string, Topic>();
  private readonly fresh = new Map<string, number>();
  private readonly listeners = new Set<() => void>();
  private source: EventSource | null = null;
  private abort = new AbortController();
  private timers: ReturnType<typeof setTimeout>[] = [];
  private retry: ReturnType<typeof setTimeout> | undefined;
  private hidden: ReturnType<typeof setTimeout> | undefined;
  private selected: string | null = null;
  private told = false;
  private tail: Message[] = [];
  private nextId = 0;
  /** Changes with every change; `shape` only when topics come. */
  version = 0;
  shape = 0;
  watch: Watch = { state: "connecting" };
  loading = true;
  /** Messages that the hub let go by because this page was slow. */
  missed = 0;
  /** Topics beyond the bound. */
  beyond = 0;

  constructor(readonly filter: string) {}

  start(): () => void {
    const look = (): void => {
      clearTimeout(this.hidden);
      if (document.hidden) this.hidden = setTimeout(() => this.close(), HIDDEN_MS);
      else if (this.source === null) this.open();
    };
    document.addEventListener("visibilitychange", look);
    this.abort = new AbortController();
    this.timers = [setInterval(() => this.tick(), 1000)];
    this.open();
    void this.load();
    return () => {
      document.removeEventListener("visibilitychange", look);
      clearTimeout(this.hidden);
      for (const timer of this.timers) clearInterval(timer);
      this.abort.abort();
      this.close();
    };
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  all(): Iterable<Topic> {
    return this.topics.values();
  }

  get size(): number {
    return this.topics.size;
  }

  get(path: string): Topic | undefined {
    return this.topics.get(path);
  }

  /** Of this topic every message comes from now on, in full. */
  select(path: string | null): void {
    if (path === this.selected) return;
    this.selected = path;
    this.tail = [];
    if (this.source !== null) this.open();
    if (path !== null && this.topics.get(path)?.payload.cut) void this.complete(path);
    this.changed();
  }

  /** The selected topic's messages, newest last. */
  messages(): readonly Message[] {
    return this.tail;
  }

  private open(): void {
    this.close();
    const query = new URLSearchParams({ filter: this.filter, latest: "true", payload: String(OVERVIEW_BYTES) });
    if (this.selected !== null) query.set("full", this.selected);
    const source = new EventSource(`/api/v1/broker/messages?${query.toString()}`);
    this.source = source;
    source.addEventListener("messages", (event) => this.take(JSON.parse((event as MessageEvent<string>).data) as Pushed[]));
    source.addEventListener("missed", (event) => {
      this.missed += Number((event as MessageEvent<string>).data);
      this.changed();
    });
    source.onopen = () => this.set({ state: "live" });
    source.onerror = () => {
      this.set({ state: "lost" });
      // The browser reconnects by itself unless the answer was no stream at all.
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), 3000);
    };
  }

  private close(): void {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  private async load(): Promise<void> {
    let after: string | undefined;
    try {
      do {
        const page = await get<RetainedPage>("/broker/retained", { filter: this.filter, limit: 500, payload: OVERVIEW_BYTES, after }, this.abort.signal);
        for (const { topic, qos, payload } of page.messages) {
          const known = this.topics.get(topic);
          if (known) known.retained = true;
          else this.add({ path: topic, retained: true, qos, time: null, count: 0, rate: 0, payload });
        }
        after = page.next ?? undefined;
        this.changed();
      } while (after !== undefined && this.topics.size < TOPICS_MAX);
      this.loading = false;
      this.changed();
    } catch (error) {
      if (this.abort.signal.aborted || !(error instanceof ApiError)) return;
      if (error.status === 400) this.set({ state: "refused", error });
      else this.timers.push(setTimeout(() => void this.load(), 3000));
    }
  }

  /** The whole retained payload of a topic of which only the beginning is known. */
  private async complete(path: string): Promise<void> {
    try {
      const page = await get<RetainedPage>("/broker/retained", { filter: path, limit: 1 }, this.abort.signal);
      const found = page.messages[0];
      const topic = this.topics.get(path);
      if (found && topic && topic.time === null) {
        topic.payload = found.payload;
        this.changed();
      }
    } catch (error) {
      if (!(error instanceof ApiError) && !this.abort.signal.aborted) throw error; // else the beginning has to do
    }
  }

  private add(topic: Topic): void {
    if (this.topics.size >= TOPICS_MAX) {
      this.beyond += 1;
      return;
    }
    this.topics.set(topic.path, topic);
    this.shape += 1;
  }

  private take(pushed: Pushed[]): void {
    for (const { topic: path, time, qos, retain, count, payload } of pushed) {
      const known = this.topics.get(path);
      const retained = retain ? payload.kind !== "empty" : (known?.retained ?? false);
      if (known) Object.assign(known, { retained, qos, time, payload, count: known.count + count });
      else this.add({ path, retained, qos, time, count, rate: 0, payload });
      this.fresh.set(path, (this.fresh.get(path) ?? 0) + count);
      if (path === this.selected) {
        this.tail.push({ id: this.nextId++, time, qos, retain, payload });
        if (this.tail.length > TAIL_MAX) this.tail = this.tail.slice(-TAIL_MAX);
      }
    }
    this.changed();
  }

  private tick(): void {
    let moved = this.fresh.size > 0;
    for (const topic of this.topics.values()) {
      const now = this.fresh.get(topic.path) ?? 0;
      if (now === 0 && topic.rate === 0) continue;
      const rate = topic.rate * 0.8 + now * 0.2;
      topic.rate = rate < 0.01 ? 0 : rate;
      moved = true;
    }
    this.fresh.clear();
    if (moved) this.changed();
  }

  private set(watch: Watch): void {
    if (this.watch.state === "refused") return;
    this.watch = watch;
    if (watch.state === "refused") this.close();
    this.changed();
  }

  /** Tells those who look, at most ten times a second. */
  private changed(): void {
    if (this.told) return;
    this.told = true;
    setTimeout(() => {
      this.told = false;
      this.version += 1;
      for (const listener of this.listeners) listener();
    }, 100);
  }
}
