// The searchable tree of points; each row follows its own point.
import { memo, useDeferredValue, useMemo, useState } from "react";
import type { Point } from "./api";
import { ageText, countText, qualityClass, qualityText, unitText, valueText } from "./format";
import { useNow, useReading } from "./hooks";
import { PenIcon, SearchIcon } from "./icons";
import { live } from "./live";
import { flatten, grow, pointFilter } from "./tree";
import { useToggled, TreeView } from "./tree_view";

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
  const { toggled, toggle } = useToggled<Point>();
  const now = useNow();

  const root = useMemo(() => grow(points.values(), pointFilter(search)), [points, search]);
  const searching = search.trim() !== "";
  const rows = useMemo(() => {
    const byDefault = (level: number): boolean => searching || points.size <= OPEN_ALL_MAX || level < 1;
    return flatten(root, (key, level) => toggled.get(key) ?? byDefault(level));
  }, [root, toggled, searching, points.size]);

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
        <TreeView
          rows={rows}
          label="Points by their place in the plant"
          selected={selected}
          onSelect={onSelect}
          toggle={toggle}
          leaf={(point, name) => <PointRow point={point} name={name} now={now} />}
          title={(point) => (point.description ? `${point.description}\n${point.path}` : point.path)}
        />
      ) : (
        <p className="empty dim">
          {!complete ? "Loading the points …" : searching ? "No point has all these words." : "No points yet. They appear when an agent has announced itself."}
        </p>
      )}
    </>
  );
}

const PointRow = memo(function PointRow({ point, name, now }: { point: Point; name: string; now: number }) {
  const reading = useReading(point.path);
  const quality = qualityClass(reading?.q);
  const age = reading ? now - Date.parse(reading.t) : 0;
  return (
    <>
      <i className={`dot q-${quality}`} role="img" aria-label={qualityText(reading?.q)} title={qualityText(reading?.q)} />
      <span className="name">{name}</span>
      {point.writable && (
        <span className="pen" title="Writable">
          <PenIcon />
        </span>
      )}
      <span className={`value v-${quality}`}>{valueText(reading, point.type)}</span>
      <span className="unit dim">{unitText(point.unit)}</span>
      <span className={`age dim${age > 10_000 ? " old" : ""}`}>{reading ? ageText(now > 0 ? age : live.now() - Date.parse(reading.t)) : ""}</span>
    </>
  );
});
