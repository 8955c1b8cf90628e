// The hub's own MQTT broker: totals, what is wrong, and either its clients or its topics.
import { useCallback, useEffect, useRef, useState, type ReactNode } from "react";
import { get, type ApiError, type BrokerClient, type BrokerState } from "./api";
import { ClientTable, type Rates } from "./client_table";
import { bytesText, clockText, countText, rateText } from "./format";
import { usePolled } from "./hooks";
import { TopicBrowser } from "./topic_browser";

type Part = "clients" | "topics";

interface Look {
  at: number;
  state: BrokerState;
  rates: Map<string, Rates>;
  received: number | null;
}

export function BrokerView() {
  const [part, setPart] = useState<Part>("clients");
  const [search, setSearch] = useState("");
  const { data, error, refresh } = usePolled<BrokerState>((signal) => get("/broker", { search, limit: 500 }, signal), 2000);
  const look = useLook(data);
  useEffect(() => refresh(), [search, refresh]);

  if (error?.code === "outside-broker") {
    return (
      <main className="broker">
        <div className="card empty" data-testid="outside">
          <h2>An outside broker</h2>
          <p>{error.message}</p>
          <p className="dim">{error.remedy}</p>
        </div>
      </main>
    );
  }
  return (
    <main className="broker">
      <Totals look={look} error={error} />
      <div className="segments" role="group" aria-label="Part of the broker">
        <Segment part="clients" current={part} set={setPart}>
          Clients
        </Segment>
        <Segment part="topics" current={part} set={setPart}>
          Topics
        </Segment>
      </div>
      {part === "clients" ? (
        <ClientTable state={look?.state} rates={look?.rates} search={search} setSearch={setSearch} refresh={refresh} />
      ) : (
        <TopicBrowser />
      )}
    </main>
  );
}

function Segment({ part, current, set, children }: { part: Part; current: Part; set: (part: Part) => void; children: ReactNode }) {
  return (
    <button aria-pressed={part === current} onClick={() => set(part)}>
      {children}
    </button>
  );
}

function Totals({ look, error }: { look: Look | undefined; error: ApiError | undefined }) {
  if (!look) {
    return (
      <section className="card" aria-label="Broker">
        <p className="dim">{error ? error.message : "Asking the broker …"}</p>
      </section>
    );
  }
  const { state } = look;
  const away = Math.max(0, state.sessions - state.connected);
  const full = state.journal_bytes / Math.max(1, state.journal_bytes_max);
  return (
    <section className={error ? "card totals old" : "card totals"} aria-label="Broker">
      <div className="figures">
        <Figure name="Clients" text={countText(state.connected)} note={away > 0 ? `${countText(away)} away` : ""} />
        <Figure name="Stuck" text={countText(state.stuck)} warn={state.stuck > 0} />
        <Figure name="Published" text={look.received === null ? "…" : `${rateText(look.received)}/s`} note={`${countText(state.received)} in all`} />
        <Figure name="Dropped" text={countText(state.dropped)} note="QoS 0, slow readers" />
        <Figure name="Subscriptions" text={countText(state.subscriptions)} />
        <Figure name="Retained" text={countText(state.retained)} note={bytesText(state.retained_bytes)} />
        <Figure name="Waiting to be sent" text={bytesText(state.out_bytes)} />
        <Figure name="Journal" text={bytesText(state.journal_bytes)} note={`of ${bytesText(state.journal_bytes_max)}`} warn={full > 0.9} />
      </div>
      {error && <p className="outcome warn">{error.message} These figures are of {clockText(state.now)}.</p>}
      {state.access_problem && (
        <p className="outcome bad" data-testid="access-problem">
          <strong>The access file has a mistake; its last good rules hold.</strong> {state.access_problem}
        </p>
      )}
      {state.tls.map((tls, index) => (
        <div key={index} className="certificates">
          {tls.problem && (
            <p className="outcome bad">
              <strong>Newer certificate files are not in use.</strong> {tls.problem}
            </p>
          )}
          {tls.certificates.map((certificate) => (
            <p key={certificate.file + certificate.subject} className={certificate.is_ending ? "tone warn" : "dim"}>
              {certificate.names.join(", ") || certificate.subject}: {certificate.days_left < 0 ? "ended" : `valid for ${countText(certificate.days_left)} days more`}
              {certificate.is_ending && `, until ${clockText(certificate.not_after)}; renew ${certificate.file}`}
            </p>
          ))}
        </div>
      ))}
    </section>
  );
}

function Figure({ name, text, note = "", warn = false }: { name: string; text: string; note?: string; warn?: boolean }) {
  return (
    <span className={warn ? "figure warn" : "figure"}>
      <small>{name}</small>
      <strong>{text}</strong>
      {note && <small> {note}</small>}
    </span>
  );
}

/** Rates are made of two looks; a counter that went back (a new connection) has none yet. */
function useLook(state: BrokerState | undefined): Look | undefined {
  const [look, setLook] = useState<Look>();
  const before = useRef<Look>(undefined);
  const take = useCallback((next: BrokerState) => {
    const last = before.current;
    const at = Date.parse(next.now);
    const seconds = last ? (at - last.at) / 1000 : 0;
    const old = new Map(last?.state.clients.map((client) => [client.client_id, client]));
    const rates = new Map<string, Rates>();
    for (const client of next.clients) {
      const was = old.get(client.client_id);
      if (was && seconds > 0 && isSameConnection(was, client)) {
        const rate = (key: "messages_in" | "messages_out" | "bytes_in" | "bytes_out"): number => (client[key] - was[key]) / seconds;
        rates.set(client.client_id, { in: rate("messages_in"), out: rate("messages_out"), bytesIn: rate("bytes_in"), bytesOut: rate("bytes_out") });
      }
    }
    const received = last && seconds > 0 && next.received >= last.state.received ? (next.received - last.state.received) / seconds : null;
    before.current = { at, state: next, rates, received };
    setLook(before.current);
  }, []);
  useEffect(() => {
    if (state) take(state);
  }, [state, take]);
  return look;
}

function isSameConnection(was: BrokerClient, is: BrokerClient): boolean {
  return was.peer === is.peer && is.bytes_in >= was.bytes_in && is.bytes_out >= was.bytes_out && is.messages_in >= was.messages_in && is.messages_out >= was.messages_out;
}
