// The page: who is signed in, what is selected, and where each pane stands on a wide or a narrow screen.
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { AgentList } from "./agent_list";
import { ApiError, everyPoint, get, post, type Agent, type Health, type Plant, type Point, type Reconcile } from "./api";
import { Balance } from "./balance";
import { BrokerView } from "./broker";
import { HealthBanner, HealthPill } from "./health";
import { useLink, useNarrow, usePolled, useTheme } from "./hooks";
import { BrokerIcon, ChartIcon, DoorIcon, Logo, MoonIcon, PlantIcon, SunIcon, TreeIcon } from "./icons";
import { live } from "./live";
import { Login } from "./login";
import { PointPane } from "./point_pane";
import { PointTree } from "./point_tree";

type Session = { state: "asking" } | { state: "out" } | { state: "in"; plant: Plant } | { state: "unreachable"; error: ApiError };
type Pane = "points" | "trend" | "plant" | "broker";

export function App() {
  const [session, setSession] = useState<Session>({ state: "asking" });
  const theme = useTheme();

  const ask = useCallback(async () => {
    try {
      const plant = await get<Plant>("/plant");
      live.skew = Date.parse(plant.now) - Date.now();
      setSession({ state: "in", plant });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setSession(error.status === 401 ? { state: "out" } : { state: "unreachable", error });
    }
  }, []);

  useEffect(() => void ask(), [ask]);
  useEffect(() => {
    if (session.state !== "unreachable") return;
    const timer = setTimeout(() => void ask(), 2000);
    return () => clearTimeout(timer);
  }, [session, ask]);

  const signOut = useCallback(async () => {
    try {
      await post("/logout", {});
    } finally {
      setSession({ state: "out" });
    }
  }, []);

  switch (session.state) {
    case "asking":
      return <p className="wait" role="status">Asking the hub …</p>;
    case "unreachable":
      return (
        <main className="wait" role="alert">
          <Logo />
          <p>{session.error.message}</p>
          <p className="dim">{session.error.remedy}</p>
        </main>
      );
    case "out":
      return <Login onIn={() => void ask()} />;
    case "in":
      return <Console plant={session.plant} theme={theme} onOut={() => setSession({ state: "out" })} signOut={() => void signOut()} />;
  }
}

interface ConsoleProps {
  plant: Plant;
  theme: { theme: "light" | "dark"; toggle: () => void };
  onOut: () => void;
  signOut: () => void;
}

function Console({ plant, theme, onOut, signOut }: ConsoleProps) {
  const { points, complete } = usePoints(onOut);
  const { selected, select, isBroker, setBroker } = useAddress();
  const [plantPane, setPlantPane] = useState<Pane>("points");
  const pane = isBroker ? "broker" : plantPane;
  const setPane = useCallback(
    (next: Pane) => {
      setBroker(next === "broker");
      if (next !== "broker") setPlantPane(next);
    },
    [setBroker],
  );
  const narrow = useNarrow();
  const link = useLink();

  const health = usePolled<Health>((signal) => get("/health", {}, signal), 3000);
  const agents = usePolled<{ agents: Agent[] }>((signal) => get("/agents", {}, signal), 2000);
  const reconcile = usePolled<Reconcile>((signal) => get("/reconcile", {}, signal), 2000);

  useEffect(() => {
    if (health.error?.status === 401 || agents.error?.status === 401) onOut();
  }, [health.error, agents.error, onOut]);

  const point = selected === null ? null : (points.get(selected) ?? null);
  const pick = useCallback(
    (path: string) => {
      select(path);
      setPlantPane("trend");
    },
    [select],
  );

  // On a wide screen something is always shown: the first number there is.
  useEffect(() => {
    if (selected === null && !isBroker && !narrow && complete) {
      const first = [...points.values()].find((p) => p.device !== null && (p.type === "float" || p.type === "double")) ?? points.values().next().value;
      if (first) select(first.path);
    }
  }, [selected, isBroker, narrow, complete, points, select]);

  const show = (which: Pane): string => (narrow && pane !== which ? "pane hidden" : "pane");
  return (
    <div className={link === "lost" || health.error ? "shell cut" : "shell"}>
      <header className="top">
        <Logo />
        <div className="plant">
          <strong>Forebay</strong>
          <span className="dim">
            {plant.enterprise} / {plant.site}
          </span>
        </div>
        <nav className="views segments" aria-label="Views">
          <button aria-current={isBroker ? undefined : "page"} onClick={() => setBroker(false)}>
            Plant
          </button>
          <button aria-current={isBroker ? "page" : undefined} onClick={() => setBroker(true)}>
            Broker
          </button>
        </nav>
        <HealthPill health={health.data} error={health.error} link={link} />
        <button className="icon" onClick={theme.toggle} aria-label={theme.theme === "dark" ? "Use the light theme" : "Use the dark theme"}>
          {theme.theme === "dark" ? <SunIcon /> : <MoonIcon />}
        </button>
        <button className="icon" onClick={signOut} aria-label="Sign out">
          <DoorIcon />
        </button>
      </header>
      <HealthBanner health={health.data} error={health.error} link={link} />
      {isBroker ? (
        <BrokerView />
      ) : (
        <main className="panes">
          <section className={`${show("points")} points`} aria-label="Points">
            <PointTree points={points} complete={complete} selected={selected} onSelect={pick} />
          </section>
          <div className="right">
            <section className={`${show("trend")} trend`} aria-label="Selected point">
              <PointPane key={selected ?? ""} point={point} path={selected} plant={plant} visible={!narrow || pane === "trend"} />
            </section>
            <section className={`${show("plant")} state`} aria-label="Plant">
              <Balance reconcile={reconcile.data} error={reconcile.error} />
              <AgentList agents={agents.data?.agents} error={agents.error} />
            </section>
          </div>
        </main>
      )}
      <nav className="tabs" aria-label="Panes">
        <Tab pane="points" current={pane} set={setPane} label="Points" icon={<TreeIcon />} />
        <Tab pane="trend" current={pane} set={setPane} label="Trend" icon={<ChartIcon />} />
        <Tab pane="plant" current={pane} set={setPane} label="Plant" icon={<PlantIcon />} />
        <Tab pane="broker" current={pane} set={setPane} label="Broker" icon={<BrokerIcon />} />
      </nav>
    </div>
  );
}

function Tab({ pane, current, set, label, icon }: { pane: Pane; current: Pane; set: (pane: Pane) => void; label: string; icon: React.ReactNode }) {
  return (
    <button aria-current={pane === current ? "page" : undefined} onClick={() => set(pane)}>
      {icon}
      <span>{label}</span>
    </button>
  );
}

/** Every point of the plant; asked again when the stream names one that is new. */
function usePoints(onOut: () => void): { points: ReadonlyMap<string, Point>; complete: boolean } {
  const [points, setPoints] = useState<ReadonlyMap<string, Point>>(new Map());
  const [complete, setComplete] = useState(false);
  const [round, setRound] = useState(0);
  const out = useRef(onOut);
  out.current = onOut;

  useEffect(() => live.start(), []);

  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = live.onUnknown(() => {
      timer ??= setTimeout(() => setRound((n) => n + 1), 500);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [round]);

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const found = new Map<string, Point>();
    const load = async (): Promise<void> => {
      try {
        await everyPoint((page) => {
          for (const point of page) found.set(point.path, point);
          live.seed(page);
          if (round === 0) setPoints(new Map(found));
        }, abort.signal);
        setPoints(found);
        setComplete(true);
        if (found.size === 0) timer = setTimeout(() => setRound((n) => n + 1), 2000);
      } catch (error) {
        if (abort.signal.aborted || !(error instanceof ApiError)) return;
        if (error.status === 401) out.current();
        else timer = setTimeout(() => setRound((n) => n + 1), 2000);
      }
    };
    void load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [round]);

  return useMemo(() => ({ points, complete }), [points, complete]);
}

/** What is selected lives in the address, so that a link or a reload shows the same: `#point=…` or `#broker`. */
function useAddress(): { selected: string | null; select: (path: string) => void; isBroker: boolean; setBroker: (is: boolean) => void } {
  const read = (): string | null => {
    const match = /^#point=(.*)$/.exec(location.hash);
    try {
      return match?.[1] ? decodeURIComponent(match[1]) : null;
    } catch {
      return null;
    }
  };
  const [selected, setSelected] = useState(read);
  const [isBroker, setIsBroker] = useState(location.hash === "#broker");
  const kept = useRef(selected);
  kept.current = selected;
  useEffect(() => {
    const changed = (): void => {
      setIsBroker(location.hash === "#broker");
      if (location.hash !== "#broker") setSelected(read());
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const select = useCallback((path: string) => {
    history.replaceState(null, "", `#point=${encodeURIComponent(path)}`);
    setSelected(path);
    setIsBroker(false);
  }, []);
  const setBroker = useCallback((is: boolean) => {
    const point = kept.current === null ? location.pathname : `#point=${encodeURIComponent(kept.current)}`;
    history.replaceState(null, "", is ? "#broker" : point);
    setIsBroker(is);
  }, []);
  return { selected, select, isBroker, setBroker };
}
