// The plant's points as a tree by the levels of their paths; plain data, no React.
import type { Point } from "./api";

export interface Row {
  key: string;
  name: string;
  level: number;
  /** Points below, for a branch; the point itself, for a leaf. */
  point: Point | null;
  count: number;
  open: boolean;
  parent: string | null;
}

interface Node {
  name: string;
  key: string;
  children: Map<string, Node>;
  points: Point[];
  count: number;
}

const branch = (name: string, key: string): Node => ({ name, key, children: new Map(), points: [], count: 0 });

/** What agents tell of themselves (how commands ended) is data, but only a search shows it. */
const isInternal = (point: Point): boolean => point.device === null && point.metric.startsWith("Forebay/");

/** Builds the tree of the points that contain every word of `search` in path, description or unit. */
export function grow(points: Iterable<Point>, search: string): Node {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const root = branch("", "");
  for (const point of points) {
    if (words.length === 0 && isInternal(point)) continue;
    if (words.length > 0) {
      const text = `${point.path} ${point.description} ${point.unit} ${point.agent}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    const levels = point.path.split("/");
    let node = root;
    node.count += 1;
    for (const level of levels.slice(0, -1)) {
      const key = `${node.key}${level}/`;
      let next = node.children.get(level);
      if (!next) {
        next = branch(level, key);
        node.children.set(level, next);
      }
      node = next;
      node.count += 1;
    }
    node.points.push(point);
  }
  return root;
}

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** The rows on screen, top to bottom; `isOpen` decides for each branch. */
export function flatten(root: Node, isOpen: (key: string, level: number) => boolean): Row[] {
  const rows: Row[] = [];
  const visit = (node: Node, level: number, parent: string | null): void => {
    const branches = [...node.children.values()].sort((a, b) => order.compare(a.name, b.name));
    for (const child of branches) {
      // A level that has one branch and nothing else is shown as `a / b`.
      let last = child;
      let name = child.name;
      while (last.points.length === 0 && last.children.size === 1) {
        last = last.children.values().next().value as Node;
        name = `${name} / ${last.name}`;
      }
      const open = isOpen(last.key, level);
      rows.push({ key: last.key, name: name || "(empty)", level, point: null, count: last.count, open, parent });
      if (open) visit(last, level + 1, last.key);
    }
    const leaves = [...node.points].sort((a, b) => order.compare(a.path, b.path));
    for (const point of leaves) {
      const name = point.path.slice(point.path.lastIndexOf("/") + 1) || "(empty)";
      rows.push({ key: point.path, name, level, point, count: 1, open: false, parent });
    }
  };
  visit(root, 0, null);
  return rows;
}
