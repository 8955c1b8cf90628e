// Whether the hub is well: a pill in the header, and a banner with the reasons when it is not.
import type { ApiError, Health } from "./api";
import type { Link } from "./live";

interface Props {
  health: Health | undefined;
  error: ApiError | undefined;
  link: Link;
}

export function HealthPill({ health, error, link }: Props) {
  const status = error ? "failing" : (health?.status ?? "unknown");
  const text = error ? "no answer" : link === "lost" ? "stream lost" : status === "unknown" ? "…" : status;
  const tone = error ? "bad" : link === "lost" ? "warn" : status === "ok" ? "good" : status === "degraded" ? "warn" : status === "failing" ? "bad" : "none";
  return (
    <span className={`pill ${tone}`} role="status" title={health ? `Hub ${health.version}` : undefined}>
      <i className="dot" aria-hidden="true" />
      {text}
    </span>
  );
}

export function HealthBanner({ health, error, link }: Props) {
  if (error) {
    return (
      <div className="banner bad" role="alert">
        <strong>{error.message}</strong> {error.remedy} What is shown may be old.
      </div>
    );
  }
  if (health && health.status !== "ok") {
    return (
      <div className={`banner ${health.status === "failing" ? "bad" : "warn"}`} role="alert">
        <strong>{health.status === "failing" ? "The hub is failing." : "The hub is degraded."}</strong> {health.reasons.join(" · ")}
      </div>
    );
  }
  if (link === "lost") {
    return (
      <div className="banner warn" role="status">
        <strong>The live stream is cut;</strong> connecting again. Values are the last ones that came.
      </div>
    );
  }
  return null;
}
