// The searchable tree of points: only the rows on screen exist, each follows its own point.
import { memo, useCallback, useDeferredValue, useEffect, useLayoutEffect, useMemo, useRef, useState, type KeyboardEvent } from "react";
import type { Point } from "./api";
import { ageText, countText, qualityClass, qualityText, unitText, valueText } from "./format";
import { useNarrow, useNow, useReading } from "./hooks";
import { ChevronIcon, PenIcon, SearchIcon } from "./icons";
import { live } from "./live";
import { flatten, grow, type Row } from "./tree";

/** With more points than this only the first levels are open at first. */
const OPEN_ALL_MAX = 150;

interface Props {
  points: ReadonlyMap<string, Point>;
  complete: boolean;
  selected: string | null;
  onSelect: (path: string) => void;
}

export function PointTree({ points, complete, selected, onSelect }: Props) {
  const [typed, setTyped] = useState("");
  const search = useDeferredValue(typed);
  const [toggled, setToggled] = useState<ReadonlyMap<string, boolean>>(new Map());

  const root = useMemo(() => grow(points.values(), search), [points, search]);
  const searching = search.trim() !== "";
  const rows = useMemo(() => {
    const byDefault = (level: number): boolean => searching || points.size <= OPEN_ALL_MAX || level < 1;
    return flatten(root, (key, level) => toggled.get(key) ?? byDefault(level));
  }, [root, toggled, searching, points.size]);

  const toggle = useCallback((row: Row, open = !row.open) => setToggled((before) => new Map(before).set(row.key, open)), []);

  return (
    <>
      <div className="search">
        <SearchIcon />
        <input type="search" placeholder="Search points" aria-label="Search points" value={typed} onChange={(event) => setTyped(event.target.value)} maxLength={200} />
        <span className="dim count" aria-live="polite">
          {searching ? `${countText(root.count)} of ${countText(points.size)}` : countText(points.size)}
        </span>
      </div>
      {rows.length > 0 ? (
        <Rows rows={rows} selected={selected} onSelect={onSelect} toggle={toggle} />
      ) : (
        <p className="empty dim">
          {!complete ? "Loading the points …" : searching ? "No point has all these words." : "No points yet. They appear when an agent has announced itself."}
        </p>
      )}
    </>
  );
}

interface RowsProps {
  rows: Row[];
  selected: string | null;
  onSelect: (path: string) => void;
  toggle: (row: Row, open?: boolean) => void;
}

function Rows({ rows, selected, onSelect, toggle }: RowsProps) {
  const height = useNarrow() ? 46 : 32;
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 800 });
  const [focused, setFocused] = useState<string | null>(null);
  const now = useNow();

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);

  const reveal = useCallback(
    (index: number) => {
      const element = box.current;
      if (!element) return;
      if (index * height < element.scrollTop) element.scrollTop = index * height;
      const bottom = (index + 1) * height - element.clientHeight;
      if (bottom > element.scrollTop) element.scrollTop = bottom;
    },
    [height],
  );

  const at = rows.findIndex((row) => row.key === (focused ?? selected));
  const move = (index: number): void => {
    const row = rows[Math.min(rows.length - 1, Math.max(0, index))];
    if (!row) return;
    setFocused(row.key);
    reveal(rows.indexOf(row));
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const row = rows[at];
    const parent = row?.parent;
    if (event.key === "ArrowDown") move(at + 1);
    else if (event.key === "ArrowUp") move(at - 1);
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(rows.length - 1);
    else if (event.key === "PageDown") move(at + Math.floor(view.height / height));
    else if (event.key === "PageUp") move(at - Math.floor(view.height / height));
    else if (event.key === "ArrowRight" && row && !row.point && !row.open) toggle(row, true);
    else if (event.key === "ArrowRight" && row && !row.point) move(at + 1);
    else if (event.key === "ArrowLeft" && row && !row.point && row.open) toggle(row, false);
    else if (event.key === "ArrowLeft" && parent) move(rows.findIndex((other) => other.key === parent));
    else if ((event.key === "Enter" || event.key === " ") && row) {
      if (row.point) onSelect(row.key);
      else toggle(row);
    } else return;
    event.preventDefault();
  };

  // A point chosen elsewhere (a link) comes into view once.
  const shown = useRef<string | null>(null);
  useEffect(() => {
    const index = rows.findIndex((row) => row.key === selected);
    if (selected !== null && shown.current !== selected && index >= 0) {
      shown.current = selected;
      reveal(index);
    }
  }, [rows, selected, reveal]);

  const first = Math.max(0, Math.floor(view.top / height) - 5);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / height) + 5);
  return (
    <div
      ref={box}
      className="tree"
      role="tree"
      aria-label="Points by their place in the plant"
      tabIndex={0}
      onKeyDown={onKeyDown}
      onFocus={() => setFocused((key) => key ?? selected ?? rows[0]?.key ?? null)}
      onBlur={() => setFocused(null)}
      aria-activedescendant={at >= first && at < last ? `row-${at}` : undefined}
    >
      <div style={{ height: rows.length * height }} className="rows">
        {rows.slice(first, last).map((row, offset) => (
          <TreeRow
            key={row.point ? `p${row.key}` : `b${row.key}`}
            row={row}
            index={first + offset}
            height={height}
            isSelected={row.point !== null && row.key === selected}
            isFocused={row.key === focused}
            now={row.point ? now : 0}
            onSelect={onSelect}
            toggle={toggle}
          />
        ))}
      </div>
    </div>
  );
}

interface TreeRowProps {
  row: Row;
  index: number;
  height: number;
  isSelected: boolean;
  isFocused: boolean;
  now: number;
  onSelect: (path: string) => void;
  toggle: (row: Row) => void;
}

const TreeRow = memo(function TreeRow({ row, index, height, isSelected, isFocused, now, onSelect, toggle }: TreeRowProps) {
  const reading = useReading(row.point ? row.key : null);
  const style = { transform: `translateY(${index * height}px)`, height, paddingInlineStart: 10 + row.level * 14 };
  const classes = `row${isSelected ? " selected" : ""}${isFocused ? " focused" : ""}`;
  if (!row.point) {
    return (
      <div id={`row-${index}`} role="treeitem" aria-level={row.level + 1} aria-expanded={row.open} className={`${classes} branch`} style={style} onClick={() => toggle(row)}>
        <ChevronIcon open={row.open} />
        <span className="name">{row.name}</span>
        <span className="dim count">{countText(row.count)}</span>
      </div>
    );
  }
  const quality = qualityClass(reading?.q);
  const age = reading ? now - Date.parse(reading.t) : 0;
  return (
    <div
      id={`row-${index}`}
      role="treeitem"
      aria-level={row.level + 1}
      aria-selected={isSelected}
      className={classes}
      style={style}
      onClick={() => onSelect(row.key)}
      title={row.point.description ? `${row.point.description}\n${row.key}` : row.key}
    >
      <i className={`dot q-${quality}`} role="img" aria-label={qualityText(reading?.q)} title={qualityText(reading?.q)} />
      <span className="name">{row.name}</span>
      {row.point.writable && (
        <span className="pen" title="Writable">
          <PenIcon />
        </span>
      )}
      <span className={`value v-${quality}`}>{valueText(reading, row.point.type)}</span>
      <span className="unit dim">{unitText(row.point.unit)}</span>
      <span className={`age dim${age > 10_000 ? " old" : ""}`}>{reading ? ageText(now > 0 ? age : live.now() - Date.parse(reading.t)) : ""}</span>
    </div>
  );
});
