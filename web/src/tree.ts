// Whatever has a path with levels (points, topics) as a tree; plain data, no React.
import type { Point } from "./api";

export interface Leaf {
  path: string;
}

export interface Row<T extends Leaf> {
  key: string;
  name: string;
  level: number;
  /** The leaf itself; null for a branch. */
  leaf: T | null;
  /** Leaves below. */
  count: number;
  open: boolean;
  parent: string | null;
}

interface Node<T> {
  name: string;
  key: string;
  children: Map<string, Node<T>>;
  leaves: T[];
  count: number;
}

const branch = <T>(name: string, key: string): Node<T> => ({ name, key, children: new Map(), leaves: [], count: 0 });

/** What agents tell of themselves (how commands ended) is data, but only a search shows it. */
const isInternal = (point: Point): boolean => point.device === null && point.metric.startsWith("Forebay/");

/** Which points a search keeps: those that contain every word in path, description, unit or agent. */
export function pointFilter(search: string): (point: Point) => boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return (point) => !isInternal(point);
  return (point) => {
    const text = `${point.path} ${point.description} ${point.unit} ${point.agent}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
}

/** Builds the tree of those that `keep` keeps. */
export function grow<T extends Leaf>(leaves: Iterable<T>, keep: (leaf: T) => boolean): Node<T> {
  const root = branch<T>("", "");
  for (const leaf of leaves) {
    if (!keep(leaf)) continue;
    const levels = leaf.path.split("/");
    let node = root;
    node.count += 1;
    for (const level of levels.slice(0, -1)) {
      const key = `${node.key}${level}/`;
      let next = node.children.get(level);
      if (!next) {
        next = branch<T>(level, key);
        node.children.set(level, next);
      }
      node = next;
      node.count += 1;
    }
    node.leaves.push(leaf);
  }
  return root;
}

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** The rows on screen, top to bottom; `isOpen` decides for each branch. */
export function flatten<T extends Leaf>(root: Node<T>, isOpen: (key: string, level: number) => boolean): Row<T>[] {
  const rows: Row<T>[] = [];
  const visit = (node: Node<T>, level: number, parent: string | null): void => {
    const branches = [...node.children.values()].sort((a, b) => order.compare(a.name, b.name));
    for (const child of branches) {
      // A level that has one branch and nothing else is shown as `a / b`.
      let last = child;
      let name = child.name;
      while (last.leaves.length === 0 && last.children.size === 1) {
        last = last.children.values().next().value as Node<T>;
        name = `${name} / ${last.name}`;
      }
      const open = isOpen(last.key, level);
      rows.push({ key: last.key, name: name || "(empty)", level, leaf: null, count: last.count, open, parent });
      if (open) visit(last, level + 1, last.key);
    }
    const leaves = [...node.leaves].sort((a, b) => order.compare(a.path, b.path));
    for (const leaf of leaves) {
      const name = leaf.path.slice(leaf.path.lastIndexOf("/") + 1) || "(empty)";
      rows.push({ key: leaf.path, name, level, leaf, count: 1, open: false, parent });
    }
  };
  visit(root, 0, null);
  return rows;
}
