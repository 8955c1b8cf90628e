// The trend of one point: history from the hub, then live readings; what is not good is a gap, and coloured below.
import { useCallback, useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ApiError, get, type History, type Point, type Reading } from "./api";
import { boundText, clockText, countText, plotted, qualityClass, qualityText, unitText, valueText, type QualityClass } from "./format";
import { live } from "./live";

const RANGES = [
  { name: "1 min", seconds: 60, again: 10_000 },
  { name: "15 min", seconds: 900, again: 20_000 },
  { name: "1 h", seconds: 3600, again: 30_000 },
  { name: "All", seconds: null, again: 60_000 },
] as const;

type Range = (typeof RANGES)[number];

/** The hub answers a long time by the first, lowest, highest and last reading of each of so many slices. */
const BUCKETS = 600;
const ROWS_SHOWN = 100;
const REDRAW_MS = 250;

interface Dot {
  x: number;
  y: number | null;
  quality: QualityClass;
  reading: Reading;
}

interface Loaded {
  dots: Dot[];
  thinned: boolean;
  truncated: boolean;
}

const EMPTY: Loaded = { dots: [], thinned: false, truncated: false };

function dot(reading: Reading): Dot {
  return { x: Date.parse(reading.t) / 1000, y: plotted(reading), quality: qualityClass(reading.q), reading };
}

export function Trend({ point }: { point: Point }) {
  const [range, setRange] = useState<Range>(RANGES[0]);
  const plottable = point.type !== "string" && point.type !== "bytes" && point.type !== "datetime";
  const [asTable, setAsTable] = useState(!plottable);
  const loaded = useHistory(point.path, range);
  const dots = useCallback((): Dot[] => {
    const base = loaded.history.dots;
    const end = base.at(-1)?.x ?? -Infinity;
    return base.concat(live.readings().map(dot).filter((late) => late.x > end));
  }, [loaded.history]);

  return (
    <div className="trendbox">
      <div className="controls">
        <div className="segments" role="group" aria-label="Time range">
          {RANGES.map((choice) => (
            <button key={choice.name} aria-pressed={choice === range} onClick={() => setRange(choice)}>
              {choice.name}
            </button>
          ))}
        </div>
        {plottable && (
          <div className="segments" role="group" aria-label="Show as">
            <button aria-pressed={!asTable} onClick={() => setAsTable(false)}>
              Chart
            </button>
            <button aria-pressed={asTable} onClick={() => setAsTable(true)}>
              Table
            </button>
          </div>
        )}
        <span className="dim note" role="status">
          {loaded.error
            ? `${loaded.error.message} ${loaded.error.remedy}`
            : loaded.loading
              ? "Loading …"
              : loaded.history.truncated
                ? "Only the newest part: more was asked for than one look may read."
                : loaded.history.thinned
                  ? "Thinned: first, lowest, highest and last of each slice."
                  : ""}
        </span>
      </div>
      {asTable ? <ReadingTable point={point} dots={dots} /> : <Chart point={point} range={range} dots={dots} />}
    </div>
  );
}

function useHistory(path: string, range: Range): { history: Loaded; loading: boolean; error: ApiError | null } {
  const [state, setState] = useState<{ history: Loaded; loading: boolean; error: ApiError | null }>({ history: EMPTY, loading: true, error: null });
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    live.watch(path);
    setState((before) => ({ ...before, loading: true }));
    const load = async (): Promise<void> => {
      clearTimeout(timer);
      const from = range.seconds === null ? undefined : new Date(live.now() - range.seconds * 1000).toISOString();
      try {
        const answer = await get<History>("/history", { path, from, buckets: BUCKETS }, abort.signal);
        setState({ history: { dots: answer.samples.map(dot), thinned: answer.thinned, truncated: answer.truncated }, loading: false, error: null });
      } catch (error) {
        if (abort.signal.aborted || !(error instanceof ApiError)) return;
        setState((before) => ({ ...before, loading: false, error }));
      }
      if (!document.hidden) timer = setTimeout(() => void load(), range.again);
    };
    const seen = (): void => {
      if (!document.hidden) void load();
    };
    document.addEventListener("visibilitychange", seen);
    void load();
    return () => {
      document.removeEventListener("visibilitychange", seen);
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, range]);
  return state;
}

function Chart({ point, range, dots }: { point: Point; range: Range; dots: () => Dot[] }) {
  const box = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLDivElement>(null);
  const current = useRef(dots);
  current.current = dots;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let shown: Dot[] = [];
    const stepped = point.type === "boolean" || point.type.includes("int");
    const size = (): { width: number; height: number } => ({ width: element.clientWidth, height: element.clientHeight });
    const plot = new uPlot(
      options(point, stepped, size(), () => shown, (index) => {
        const at = index === null ? undefined : shown[index];
        if (readout.current) {
          readout.current.textContent = at ? `${clockText(at.reading.t)}  ${valueText(at.reading, point.type)} ${unitText(point.unit)}  ${at.quality === "good" ? "" : qualityText(at.reading.q)}` : "";
        }
      }),
      [[], []],
      element,
    );
    const draw = (): void => {
      if (document.hidden) return;
      const now = live.now() / 1000;
      shown = current.current();
      const from = range.seconds === null ? (shown[0]?.x ?? now - 60) : now - range.seconds;
      shown = shown.filter((dot) => dot.x >= from - (range.seconds ?? 0));
      plot.batch(() => {
        plot.setData([shown.map((d) => d.x), shown.map((d) => d.y)], false);
        plot.setScale("x", { min: from, max: Math.max(now, from + 1) });
      });
      const description = `Trend of ${point.path}, ${range.name}: ${countText(shown.length)} readings`;
      element.setAttribute("aria-label", description);
      element.dataset.readings = String(shown.length);
    };
    draw();
    const timer = setInterval(draw, REDRAW_MS);
    const observer = new ResizeObserver(() => plot.setSize(size()));
    observer.observe(element);
    return () => {
      clearInterval(timer);
      observer.disconnect();
      plot.destroy();
    };
  }, [point, range]);

  return (
    <>
      <div className="readout dim" ref={readout} aria-hidden="true" />
      <div className="chart" ref={box} role="img" aria-label={`Trend of ${point.path}`} data-testid="chart" />
    </>
  );
}

const color = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(point: Point, stepped: boolean, size: { width: number; height: number }, shown: () => Dot[], onCursor: (index: number | null) => void): uPlot.Options {
  const font = "12px system-ui, sans-serif";
  const axis: uPlot.Axis = { stroke: () => color("--dim"), grid: { stroke: () => color("--grid"), width: 1 }, ticks: { show: false }, font };
  const linear = stepped ? uPlot.paths.stepped?.({ align: 1 }) : uPlot.paths.linear?.();
  return {
    ...size,
    padding: [8, 26, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 7 }, y: false },
    scales: {
      x: { time: true },
      y: { range: (_plot, low, high) => limits(low, high) },
    },
    axes: [
      { ...axis, space: 70, size: 28, values: (_plot, splits, _axis, _space, step) => splits.map((at) => timeLabel(at, step)) },
      { ...axis, size: 62, values: (_plot, splits) => splits.map((value) => (value === null ? "" : short(value))) },
    ],
    series: [
      {},
      {
        stroke: () => color("--accent"),
        width: 1.8,
        fill: () => color("--accent-faint"),
        points: { show: (plot) => plot.data[0].length < 80, size: 4, fill: () => color("--accent") },
        spanGaps: false,
        ...(linear ? { paths: linear } : {}),
      },
    ],
    hooks: {
      drawAxes: [(plot) => drawLimits(plot, point)],
      draw: [(plot) => drawQuality(plot, shown())],
      setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)],
    },
  };
}

function limits(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const room = high > low ? (high - low) * 0.1 : Math.max(Math.abs(high) * 0.05, 0.5);
  return [low - room, high + room];
}

function timeLabel(seconds: number, step: number): string {
  const at = new Date(seconds * 1000);
  const two = (number: number): string => String(number).padStart(2, "0");
  if (step >= 86_400) return `${two(at.getDate())}.${two(at.getMonth() + 1)}.`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return step >= 60 ? clock : `${clock}:${two(at.getSeconds())}`;
}

function short(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(1).replace("-", "−");
  return boundText(value);
}

/** The range that the point's definition gives, where it is in sight. */
function drawLimits(plot: uPlot, point: Point): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = color("--limit");
  ctx.setLineDash([6, 6]);
  for (const bound of [point.min, point.max]) {
    if (bound === null) continue;
    const y = plot.valToPos(bound, "y", true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}

/** A strip along the bottom where the quality is not good. */
function drawQuality(plot: uPlot, shown: Dot[]): void {
  const { ctx, bbox } = plot;
  const thick = 5 * devicePixelRatio;
  const end = plot.scales.x?.max ?? 0;
  ctx.save();
  shown.forEach((dot, index) => {
    if (dot.quality === "good" || dot.quality === "none") return;
    const from = Math.max(bbox.left, plot.valToPos(dot.x, "x", true));
    const to = Math.min(bbox.left + bbox.width, plot.valToPos(shown[index + 1]?.x ?? end, "x", true));
    ctx.fillStyle = color(`--${dot.quality}`);
    if (to > from) ctx.fillRect(from, bbox.top + bbox.height - thick, Math.max(to - from, 2), thick);
  });
  ctx.restore();
}

function ReadingTable({ point, dots }: { point: Point; dots: () => Dot[] }) {
  const [rows, setRows] = useState<Dot[]>(() => dots().slice(-ROWS_SHOWN).reverse());
  useEffect(() => {
    const look = (): void => setRows(dots().slice(-ROWS_SHOWN).reverse());
    look();
    const timer = setInterval(look, 1000);
    return () => clearInterval(timer);
  }, [dots]);
  return (
    <div className="scroll readings" tabIndex={0} role="region" aria-label="Newest readings">
      <table>
        <thead>
          <tr>
            <th>time</th>
            <th>value{point.unit && ` in ${unitText(point.unit)}`}</th>
            <th>quality</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.reading.t}>
              <td>
                <time dateTime={row.reading.t}>{clockText(row.reading.t)}</time>
              </td>
              <td className="text">{valueText(row.reading, point.type)}</td>
              <td>
                <i className={`dot q-${row.quality}`} aria-hidden="true" /> {qualityText(row.reading.q)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length === 0 && <p className="dim">No readings in this time.</p>}
    </div>
  );
}
