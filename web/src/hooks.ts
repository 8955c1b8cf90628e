// React's side of the live store, of polling and of the ticking clock.
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { ApiError, type Reading } from "./api";
import { live, type Link } from "./live";

export function useReading(path: string | null): Reading | undefined {
  const subscribe = useCallback((listener: () => void) => (path === null ? () => {} : live.subscribe(path, listener)), [path]);
  return useSyncExternalStore(subscribe, () => (path === null ? undefined : live.get(path)));
}

export function useLink(): Link {
  return useSyncExternalStore(
    (listener) => live.onLink(listener),
    () => live.link,
  );
}

/** Re-renders each second, so that ages move; gives the hub's time in ms. */
export function useNow(): number {
  const [now, setNow] = useState(() => live.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(live.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

export interface Polled<T> {
  data: T | undefined;
  error: ApiError | undefined;
  refresh: () => void;
}

/** Asks again and again while the page is visible. */
export function usePolled<T>(ask: (signal: AbortSignal) => Promise<T>, everyMillis: number): Polled<T> {
  const [state, setState] = useState<{ data: T | undefined; error: ApiError | undefined }>({ data: undefined, error: undefined });
  const question = useRef(ask);
  question.current = ask;
  const again = useRef<() => void>(() => {});
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const round = async (): Promise<void> => {
      clearTimeout(timer);
      if (!document.hidden) {
        try {
          const data = await question.current(abort.signal);
          if (!abort.signal.aborted) setState({ data, error: undefined });
        } catch (error) {
          if (!abort.signal.aborted && error instanceof ApiError) setState((before) => ({ data: before.data, error }));
        }
      }
      if (!abort.signal.aborted) timer = setTimeout(() => void round(), everyMillis);
    };
    again.current = () => void round();
    const visible = (): void => {
      if (!document.hidden) void round();
    };
    document.addEventListener("visibilitychange", visible);
    void round();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", visible);
    };
  }, [everyMillis]);
  const refresh = useCallback(() => again.current(), []);
  return { ...state, refresh };
}

export type Theme = "light" | "dark";

/** The chosen theme, else the system's; `toggle` chooses the other one. */
export function useTheme(): { theme: Theme; toggle: () => void } {
  const system = useSyncExternalStore(
    (listener) => {
      const query = matchMedia("(prefers-color-scheme: dark)");
      query.addEventListener("change", listener);
      return () => query.removeEventListener("change", listener);
    },
    () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light") as Theme,
  );
  const [chosen, setChosen] = useState<Theme | null>(() => {
    const kept = localStorage.getItem("forebay-theme");
    return kept === "light" || kept === "dark" ? kept : null;
  });
  const theme = chosen ?? system;
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const toggle = useCallback(() => {
    const next: Theme = theme === "dark" ? "light" : "dark";
    setChosen(next);
    if (next === system) localStorage.removeItem("forebay-theme");
    else localStorage.setItem("forebay-theme", next);
    if (next === system) setChosen(null);
  }, [theme, system]);
  return { theme, toggle };
}

/** Whether the screen is narrow enough for one pane at a time. */
export function useNarrow(): boolean {
  return useSyncExternalStore(
    (listener) => {
      const query = matchMedia("(max-width: 820px)");
      query.addEventListener("change", listener);
      return () => query.removeEventListener("change", listener);
    },
    () => matchMedia("(max-width: 820px)").matches,
  );
}
