// The broker's clients: sorted, searched, those that are stuck first and with their reason; one can be disconnected.
import { Fragment, useState } from "react";
import { ApiError, post, type BrokerClient, type BrokerState } from "./api";
import { ageText, bytesText, countText, rateText } from "./format";
import { SearchIcon } from "./icons";

/** Per second. */
export interface Rates {
  in: number;
  out: number;
  bytesIn: number;
  bytesOut: number;
}

interface Props {
  state: BrokerState | undefined;
  rates: ReadonlyMap<string, Rates> | undefined;
  search: string;
  setSearch: (search: string) => void;
  refresh: () => void;
}

type Value = number | string;
interface Column {
  name: string;
  value: (client: BrokerClient, rates: Rates | undefined) => Value;
  isNumber?: boolean;
}

const COLUMNS: Column[] = [
  { name: "Client", value: (client) => client.client_id },
  { name: "State", value: (client) => (client.stuck ? 0 : client.waiting_for === "connection" ? 2 : 1) },
  { name: "Connected", value: (client) => (client.peer === null ? -1 : client.connected_s), isNumber: true },
  { name: "Filters", value: (client) => client.filters_count, isNumber: true },
  { name: "From it", value: (_client, rates) => rates?.in ?? -1, isNumber: true },
  { name: "To it", value: (_client, rates) => rates?.out ?? -1, isNumber: true },
  { name: "Queued", value: (client) => client.queued, isNumber: true },
  { name: "In flight", value: (client) => client.in_flight, isNumber: true },
  { name: "Dropped", value: (client) => client.dropped + client.refused, isNumber: true },
];

const WAITS: Record<BrokerClient["waiting_for"], string> = {
  data: "has everything",
  acknowledgements: "to acknowledge",
  socket: "socket is full",
  host: "waits for the hub",
  disk: "waits for the disk",
  journal: "is catching up",
  connection: "away",
};

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

export function ClientTable({ state, rates, search, setSearch, refresh }: Props) {
  const [sort, setSort] = useState({ column: 1, down: false });
  const [open, setOpen] = useState<string | null>(null);
  const value = COLUMNS[sort.column]?.value ?? COLUMNS[0]!.value;
  const rows = [...(state?.clients ?? [])].sort((a, b) => {
    const [one, other] = [value(a, rates?.get(a.client_id)), value(b, rates?.get(b.client_id))];
    const first = typeof one === "number" && typeof other === "number" ? one - other : order.compare(String(one), String(other));
    return (sort.down ? -first : first) || order.compare(a.client_id, b.client_id);
  });
  return (
    <section className="card clients" aria-label="Clients">
      <div className="search">
        <SearchIcon />
        <input type="search" placeholder="Search client, identity, address or filter" aria-label="Search clients" value={search} onChange={(event) => setSearch(event.target.value)} maxLength={100} />
        <span className="dim count">{state && (state.found > rows.length ? `${countText(rows.length)} of ${countText(state.found)}` : countText(state.found))}</span>
      </div>
      {state && rows.length === 0 ? (
        <p className="empty dim">{search.trim() ? "No client has that." : "Nobody is connected, and no session waits for its client."}</p>
      ) : (
        <div className="scroll" tabIndex={0} role="region" aria-label="Table of clients">
          <table>
            <thead>
              <tr>
                {COLUMNS.map((column, index) => (
                  <th key={column.name} className={column.isNumber ? "number" : undefined} aria-sort={index === sort.column ? (sort.down ? "descending" : "ascending") : undefined}>
                    <button onClick={() => setSort({ column: index, down: index === sort.column ? !sort.down : column.isNumber === true })}>
                      {column.name}
                      {index === sort.column && <span aria-hidden="true">{sort.down ? " ↓" : " ↑"}</span>}
                    </button>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((client) => {
                const isOpen = client.client_id === open;
                return (
                  <Fragment key={client.client_id}>
                    <ClientRow client={client} rates={rates?.get(client.client_id)} isOpen={isOpen} toggle={() => setOpen(isOpen ? null : client.client_id)} />
                    {isOpen && (
                      <tr className="more">
                        <td colSpan={COLUMNS.length}>
                          <Details client={client} rates={rates?.get(client.client_id)} refresh={refresh} />
                        </td>
                      </tr>
                    )}
                  </Fragment>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function ClientRow({ client, rates, isOpen, toggle }: { client: BrokerClient; rates: Rates | undefined; isOpen: boolean; toggle: () => void }) {
  const rate = (messages: number | undefined, bytes: number | undefined): string => (messages === undefined || bytes === undefined ? "…" : `${rateText(messages)}/s · ${bytesText(bytes)}/s`);
  return (
    <tr className={client.stuck ? "stuck" : undefined} data-client={client.client_id}>
      <td>
        <button className="name" aria-expanded={isOpen} onClick={toggle}>
          {client.client_id || "(no client id)"}
        </button>
        <small className="dim"> {client.identity}</small>
      </td>
      <td className="why">
        {client.stuck ? (
          <>
            <strong>Stuck{client.stuck_s !== null && ` for ${ageText(client.stuck_s * 1000)}`}.</strong> {client.stuck}
          </>
        ) : (
          <span className="dim">{WAITS[client.waiting_for]}</span>
        )}
      </td>
      <td className="number">{client.peer === null ? "–" : ageText(client.connected_s * 1000)}</td>
      <td className="number">{countText(client.filters_count)}</td>
      <td className="number">{rate(rates?.in, rates?.bytesIn)}</td>
      <td className="number">{rate(rates?.out, rates?.bytesOut)}</td>
      <td className="number">{countText(client.queued)}</td>
      <td className="number">{countText(client.in_flight)}</td>
      <td className={client.dropped + client.refused > 0 ? "number warn" : "number"}>{countText(client.dropped + client.refused)}</td>
    </tr>
  );
}

function Details({ client, rates, refresh }: { client: BrokerClient; rates: Rates | undefined; refresh: () => void }) {
  const facts: [string, string][] = [
    ["Address", client.peer ?? "not connected"],
    ["Came by", client.peer === null ? "–" : `${client.transport}, MQTT ${client.version}, at ${client.listener}`],
    ["Logged in", client.login || "–"],
    ["Session", client.expiry_s === 0 ? "ends with the connection" : client.expiry_s === 0xffffffff ? "stays for ever" : `stays ${ageText(client.expiry_s * 1000)} without it`],
    ["From it", `${countText(client.messages_in)} messages, ${bytesText(client.bytes_in)}${rates ? `, ${bytesText(rates.bytesIn)}/s` : ""}`],
    ["To it", `${countText(client.messages_out)} messages, ${bytesText(client.bytes_out)}${rates ? `, ${bytesText(rates.bytesOut)}/s` : ""}`],
    ["Dropped (QoS 0)", countText(client.dropped)],
    ["Refused, queue full", countText(client.refused)],
  ];
  return (
    <div className="client">
      <dl className="facts">
        {facts.map(([name, text]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{text}</dd>
          </div>
        ))}
        <div className="wide">
          <dt>Subscriptions</dt>
          <dd>
            {client.filters.length === 0 && "none"}
            {client.filters.map((filter) => (
              <code key={filter} className="chip">
                {filter}
              </code>
            ))}
            {client.filters_count > client.filters.length && ` and ${countText(client.filters_count - client.filters.length)} more`}
          </dd>
        </div>
      </dl>
      {client.peer !== null && <Disconnect key={client.client_id} client={client} refresh={refresh} />}
    </div>
  );
}

function Disconnect({ client, refresh }: { client: BrokerClient; refresh: () => void }) {
  const [step, setStep] = useState<"idle" | "confirm" | "sent">("idle");
  const [error, setError] = useState<ApiError | null>(null);
  const send = async (): Promise<void> => {
    setStep("sent");
    setError(null);
    try {
      await post("/broker/disconnect", { client_id: client.client_id });
      refresh();
    } catch (problem) {
      if (problem instanceof ApiError) setError(problem);
    }
    setStep("idle");
  };
  return (
    <div className="disconnect">
      {step === "idle" ? (
        <button onClick={() => setStep("confirm")}>Disconnect …</button>
      ) : (
        <div className="confirm" role="group" aria-label="Confirm">
          <p>
            Disconnect <strong>{client.client_id}</strong>? It may connect again; <code>forebay user disable</code> keeps it out.
          </p>
          <button className="danger" disabled={step === "sent"} autoFocus onClick={() => void send()}>
            Disconnect now
          </button>
          <button disabled={step === "sent"} onClick={() => setStep("idle")}>
            Back
          </button>
        </div>
      )}
      {error && (
        <p className="outcome bad" role="alert">
          {error.message}
        </p>
      )}
    </div>
  );
}
