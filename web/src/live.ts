// The latest value of every point, kept by one event stream; components subscribe to the points they show.
import type { Reading } from "./api";

export type Link = "connecting" | "live" | "lost";

interface Pushed extends Reading {
  p: string;
}

type Listener = () => void;

/** A hidden page gives its stream back after so long: browsers allow six connections per host, phones have batteries. */
const HIDDEN_MS = 20_000;

/** How many readings of the watched point are kept between two looks at its history. */
const TAIL_MAX = 20_000;

export class Live {
  private readonly values = new Map<string, Reading>();
  private readonly listeners = new Map<string, Set<Listener>>();
  private readonly linkListeners = new Set<Listener>();
  private readonly unknownListeners = new Set<(path: string) => void>();
  private source: EventSource | null = null;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private hidden: ReturnType<typeof setTimeout> | undefined;
  private watched: string | null = null;
  private tail: Reading[] = [];
  private known = new Set<string>();
  link: Link = "connecting";
  /** Hub time minus browser time, in ms. */
  skew = 0;

  /** Opens the stream, and keeps it while the page can be seen; gives back how to end that. */
  start(): () => void {
    const look = (): void => {
      clearTimeout(this.hidden);
      if (document.hidden) this.hidden = setTimeout(() => this.close(), HIDDEN_MS);
      else if (this.source === null) this.open();
    };
    document.addEventListener("visibilitychange", look);
    this.open();
    return () => {
      document.removeEventListener("visibilitychange", look);
      clearTimeout(this.hidden);
      this.close();
    };
  }

  private open(): void {
    this.close();
    const source = new EventSource("/api/v1/live");
    this.source = source;
    source.addEventListener("values", (event) => this.take(JSON.parse((event as MessageEvent<string>).data) as Pushed[]));
    source.addEventListener("clock", (event) => {
      this.skew = Date.parse(String((event as MessageEvent<string>).data)) - Date.now();
    });
    source.onopen = () => this.setLink("live");
    source.onerror = () => {
      this.setLink("lost");
      // The browser reconnects by itself unless the answer was no stream at all (hub restarting, session gone).
      if (source.readyState === EventSource.CLOSED) this.retry = setTimeout(() => this.open(), 2000);
    };
  }

  private close(): void {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  /** Values that came with the list of points; the stream's own are never replaced by older ones. */
  seed(points: { path: string; last: Reading | null }[]): void {
    for (const point of points) {
      this.known.add(point.path);
      if (point.last && !this.values.has(point.path)) {
        this.values.set(point.path, point.last);
        this.tell(point.path);
      }
    }
  }

  get(path: string): Reading | undefined {
    return this.values.get(path);
  }

  subscribe(path: string, listener: Listener): () => void {
    const set = this.listeners.get(path) ?? new Set();
    this.listeners.set(path, set.add(listener));
    return () => {
      set.delete(listener);
      if (set.size === 0) this.listeners.delete(path);
    };
  }

  onLink(listener: Listener): () => void {
    this.linkListeners.add(listener);
    return () => this.linkListeners.delete(listener);
  }

  /** Tells of a path that the list of points did not have. */
  onUnknown(listener: (path: string) => void): () => void {
    this.unknownListeners.add(listener);
    return () => this.unknownListeners.delete(listener);
  }

  /** Keeps every reading of `path` from now on, for the trend. */
  watch(path: string | null): void {
    this.watched = path;
    this.tail = [];
  }

  /** The watched point's readings since `watch`. */
  readings(): readonly Reading[] {
    return this.tail;
  }

  now(): number {
    return Date.now() + this.skew;
  }

  private take(pushed: Pushed[]): void {
    for (const { p, ...reading } of pushed) {
      this.values.set(p, reading);
      if (p === this.watched) {
        this.tail.push(reading);
        if (this.tail.length > TAIL_MAX) this.tail.splice(0, TAIL_MAX / 2);
      }
      this.tell(p);
      if (!this.known.has(p)) {
        this.known.add(p);
        for (const listener of this.unknownListeners) listener(p);
      }
    }
  }

  private tell(path: string): void {
    const set = this.listeners.get(path);
    if (set) for (const listener of set) listener();
  }

  private setLink(link: Link): void {
    if (this.link === link) return;
    this.link = link;
    for (const listener of this.linkListeners) listener();
  }
}

export const live = new Live();
