// A tree of which only the rows on screen exist; walked with the keyboard.
import { useCallback, useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { countText } from "./format";
import { useNarrow } from "./hooks";
import { ChevronIcon } from "./icons";
import type { Leaf, Row } from "./tree";

/** Which branches a person opened or closed. */
export function useToggled<T extends Leaf>(): { toggled: ReadonlyMap<string, boolean>; toggle: (row: Row<T>, open?: boolean) => void } {
  const [toggled, setToggled] = useState<ReadonlyMap<string, boolean>>(new Map());
  const toggle = useCallback((row: Row<T>, open = !row.open) => setToggled((before) => new Map(before).set(row.key, open)), []);
  return { toggled, toggle };
}

interface Props<T extends Leaf> {
  rows: Row<T>[];
  label: string;
  selected: string | null;
  onSelect: (path: string) => void;
  toggle: (row: Row<T>, open?: boolean) => void;
  /** What a leaf's row shows; it is asked for the rows on screen only. */
  leaf: (leaf: T, name: string) => ReactNode;
  title: (leaf: T) => string;
}

export function TreeView<T extends Leaf>({ rows, label, selected, onSelect, toggle, leaf, title }: Props<T>) {
  const height = useNarrow() ? 46 : 32;
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 800 });
  const [focused, setFocused] = useState<string | null>(null);

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
    else if (event.key === "ArrowRight" && row && !row.leaf && !row.open) toggle(row, true);
    else if (event.key === "ArrowRight" && row && !row.leaf) move(at + 1);
    else if (event.key === "ArrowLeft" && row && !row.leaf && row.open) toggle(row, false);
    else if (event.key === "ArrowLeft" && parent) move(rows.findIndex((other) => other.key === parent));
    else if ((event.key === "Enter" || event.key === " ") && row) {
      if (row.leaf) onSelect(row.key);
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
      aria-label={label}
      tabIndex={0}
      onKeyDown={onKeyDown}
      onFocus={() => setFocused((key) => key ?? selected ?? rows[0]?.key ?? null)}
      onBlur={() => setFocused(null)}
      aria-activedescendant={at >= first && at < last ? `row-${at}` : undefined}
    >
      <div style={{ height: rows.length * height }} className="rows">
        {rows.slice(first, last).map((row, offset) => {
          const index = first + offset;
          const style = { transform: `translateY(${index * height}px)`, height, paddingInlineStart: 10 + row.level * 14 };
          const isSelected = row.leaf !== null && row.key === selected;
          const classes = `row${isSelected ? " selected" : ""}${row.key === focused ? " focused" : ""}`;
          if (row.leaf === null) {
            return (
              <div key={`b${row.key}`} id={`row-${index}`} role="treeitem" aria-level={row.level + 1} aria-expanded={row.open} className={`${classes} branch`} style={style} onClick={() => toggle(row)}>
                <ChevronIcon open={row.open} />
                <span className="name">{row.name}</span>
                <span className="dim count">{countText(row.count)}</span>
              </div>
            );
          }
          return (
            <div key={`p${row.key}`} id={`row-${index}`} role="treeitem" aria-level={row.level + 1} aria-selected={isSelected} className={classes} style={style} onClick={() => onSelect(row.key)} title={title(row.leaf)}>
              {leaf(row.leaf, row.name)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
