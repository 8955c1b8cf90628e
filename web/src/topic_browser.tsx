// The topics of the broker: a tree of what is retained and what comes, and the selected one with its last messages.
import { useEffect, useMemo, useState, useSyncExternalStore, type FormEvent } from "react";
import { bytesText, clockText, countText, rateText } from "./format";
import { SearchIcon } from "./icons";
import { PayloadView, payloadLine } from "./payload_view";
import { TopicStore, type Message, type Topic } from "./topic_store";
import { flatten, grow } from "./tree";
import { TreeView, useToggled } from "./tree_view";

/** With more topics than this only the first level is open at first. */
const OPEN_ALL_MAX = 60;

export function TopicBrowser() {
  const [filter, setFilter] = useState("#");
  const store = useMemo(() => new TopicStore(filter), [filter]);
  useEffect(() => store.start(), [store]);
  return <Browser key={filter} store={store} setFilter={setFilter} />;
}

function Browser({ store, setFilter }: { store: TopicStore; setFilter: (filter: string) => void }) {
  useSyncExternalStore(store.subscribe, () => store.version);
  const [typed, setTyped] = useState(store.filter);
  const [selected, setSelected] = useState<string | null>(null);
  const { toggled, toggle } = useToggled<Topic>();
  const { shape, watch } = store;

  const root = useMemo(() => grow(store.all(), () => true), [store, shape]);
  const size = store.size;
  const rows = useMemo(() => flatten(root, (key, level) => toggled.get(key) ?? (size <= OPEN_ALL_MAX || level < 1)), [root, toggled, size]);

  const pick = (path: string): void => {
    store.select(path);
    setSelected(path);
  };
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setFilter(typed.trim() || "#");
  };
  const topic = selected === null ? undefined : store.get(selected);
  return (
    <div className="topics">
      <section className="card tree-card" aria-label="Topics">
        <form className="search" onSubmit={submit}>
          <SearchIcon />
          <input aria-label="Topic filter" title="A topic filter, such as spBv1.0/# or $SYS/#; Enter applies it" value={typed} onChange={(event) => setTyped(event.target.value)} maxLength={1000} autoComplete="off" spellCheck={false} />
          {typed.trim() !== store.filter && <button>Apply</button>}
          <span className="dim count">{countText(size)}</span>
        </form>
        <p className={watch.state === "lost" || watch.state === "refused" ? "note tone warn" : "note dim"} role="status">
          {watch.state === "refused" && `${watch.error.message}`}
          {watch.state === "connecting" && "Connecting …"}
          {watch.state === "lost" && "The stream of messages is cut; connecting again. What is shown is what came last."}
          {watch.state === "live" && (filterNote(store) || "Retained messages, and what is published from now on.")}
        </p>
        {rows.length > 0 ? (
          <TreeView rows={rows} label="Topics by their levels" selected={selected} onSelect={pick} toggle={toggle} leaf={(leaf, name) => <TopicRow topic={leaf} name={name} />} title={(leaf) => leaf.path} />
        ) : (
          <p className="empty dim">{store.loading && watch.state !== "refused" ? "Asking for retained messages …" : "Nothing is retained here, and nothing has been published yet."}</p>
        )}
      </section>
      <section className="card detail" aria-label="Selected topic">
        {topic ? <TopicDetail key={topic.path} topic={topic} messages={store.messages()} /> : <p className="dim">Choose a topic to see its messages. Topics that begin with $ need a filter of their own: $SYS/#, $sparkplug/#.</p>}
      </section>
    </div>
  );
}

function filterNote(store: TopicStore): string {
  const notes = [];
  if (store.missed > 0) notes.push(`${countText(store.missed)} messages went by uncounted: too many for a page.`);
  if (store.beyond > 0) notes.push("There are more topics than a page can hold; use a narrower filter.");
  return notes.join(" ");
}

function TopicRow({ topic, name }: { topic: Topic; name: string }) {
  return (
    <>
      <span className="name">{name}</span>
      {topic.retained && (
        <span className="flag" title="Retained">
          R
        </span>
      )}
      <span className="value dim">{payloadLine(topic.payload)}</span>
      <span className="age dim">{topic.rate > 0 ? `${rateText(topic.rate)}/s` : ""}</span>
    </>
  );
}

function TopicDetail({ topic, messages }: { topic: Topic; messages: readonly Message[] }) {
  const [paused, setPaused] = useState<readonly Message[] | null>(null);
  const [opened, setOpened] = useState<number | null>(null);
  const shown = paused ?? messages;
  const last = shown[shown.length - 1];
  const picked = shown.find((message) => message.id === opened) ?? last;
  const payload = picked?.payload ?? topic.payload;
  const waiting = paused ? messages.filter((message) => message.id > (last?.id ?? -1)).length : 0;
  const [qos, time] = picked ? [picked.qos, picked.time] : [topic.qos, topic.time];
  return (
    <>
      <header className="title">
        <div className="names">
          <h2>{topic.path}</h2>
          <p className="dim">
            {topic.retained && <span className="chip">retained</span>} QoS {qos} · {countText(topic.count)} {topic.count === 1 ? "message" : "messages"} since you look · {rateText(topic.rate)}/s · {bytesText(payload.bytes)}
          </p>
        </div>
        <button onClick={() => setPaused(paused ? null : [...messages])} aria-pressed={paused !== null}>
          {paused ? `Go on${waiting > 0 ? ` (${countText(waiting)} newer)` : ""}` : "Pause"}
        </button>
      </header>
      <p className="note dim">{time === null ? "The retained message, from before you looked." : picked && picked !== last ? `An earlier message, of ${clockText(time)}.` : `The last message, of ${clockText(time)}.`}</p>
      <PayloadView payload={payload} />
      {shown.length > 0 && (
        <div className="tail">
          <h3>{paused ? "Messages, paused" : "Messages"}</h3>
          <ol role="log" aria-live="off" aria-label="Messages">
            {[...shown].reverse().map((message) => (
              <li key={message.id}>
                <button aria-pressed={message === picked} onClick={() => setOpened(message.id === opened ? null : message.id)}>
                  <time className="dim">{preciseText(message.time)}</time>
                  <span className="line-text">{payloadLine(message.payload)}</span>
                  {message.retain && <span className="flag">R</span>}
                  <span className="dim">{bytesText(message.payload.bytes)}</span>
                </button>
              </li>
            ))}
          </ol>
        </div>
      )}
    </>
  );
}

/** With milliseconds: several messages come in a second. */
function preciseText(time: string): string {
  const millis = /\.(\d{3})/.exec(time)?.[1];
  return `${clockText(time)}${millis ? `.${millis}` : ""}`;
}
