// Sign in with the hub's token.
import { useState, type FormEvent } from "react";
import { ApiError, post } from "./api";
import { Logo } from "./icons";

export function Login({ onIn }: { onIn: () => void }) {
  const [password, setPassword] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await post("/login", { password });
      onIn();
    } catch (problem) {
      if (problem instanceof ApiError) setError(problem);
      setBusy(false);
    }
  };

  return (
    <main className="login">
      <form className="card" onSubmit={(event) => void submit(event)}>
        <div className="brand">
          <Logo />
          <h1>Forebay</h1>
        </div>
        <input type="text" name="username" value="admin" autoComplete="username" readOnly hidden />
        <label htmlFor="password">Password</label>
        <input
          id="password"
          type="password"
          autoComplete="current-password"
          value={password}
          onChange={(event) => setPassword(event.target.value)}
          autoFocus
          required
          maxLength={1024}
          aria-describedby="password-help"
        />
        <p id="password-help" className="dim">
          The hub's token. It was printed at its first start and is kept in <code>token</code> in its data folder.
        </p>
        {error && (
          <p className="problem" role="alert">
            {error.message} {error.remedy}
          </p>
        )}
        <button className="primary" disabled={busy || password === ""}>
          {busy ? "Signing in …" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
