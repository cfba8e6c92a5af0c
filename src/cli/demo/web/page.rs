//! The page that the demo's web servers show in a browser: who answers, in the server's colour, and who
//! answered before. Not the servers.

/// Names, as `/who` tells them, and colours.
pub(super) const SERVERS: [(&str, &str); 3] =
    [("amber", "#b45309"), ("teal", "#0f766e"), ("violet", "#6d28d9")];

/// The page; it asks `/who` once a second, so that it needs no loading again to see a move.
pub(super) fn html() -> String {
    let colors = SERVERS.map(|(name, color)| format!("{name}: \"{color}\"")).join(", ");
    PAGE.replace("COLORS", &colors)
}

const PAGE: &str = r##"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sluice demo</title>
<style>
  :root { --own: #475569; color-scheme: light; }
  * { box-sizing: border-box; margin: 0; }
  body { min-height: 100vh; display: grid; place-items: center; padding: 2rem; color: #0f172a;
         font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
         background: color-mix(in srgb, var(--own) 12%, white); transition: background .6s; }
  main { width: min(38rem, 100%); background: white; border-radius: 1.25rem; overflow: hidden;
         box-shadow: 0 1px 2px #0f172a1a, 0 1.5rem 3rem -1rem #0f172a33; }
  header { background: var(--own); color: white; padding: 2.5rem 2.5rem 2rem; transition: background .6s; }
  header p { opacity: .85; }
  h1 { font-size: clamp(2.5rem, 10vw, 4rem); line-height: 1.1; letter-spacing: -.03em; }
  section { padding: 2rem 2.5rem 2.5rem; }
  dl { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem; margin-bottom: 1.75rem; }
  dt { color: #64748b; font-size: .8125rem; }
  dd { font-size: 1.75rem; font-weight: 600; font-variant-numeric: tabular-nums; }
  #past { display: flex; flex-wrap: wrap; gap: .375rem; min-height: 3.125rem; align-content: start; }
  #past i { width: 1.375rem; height: 1.375rem; border-radius: .375rem; background: #e2e8f0; }
  .hint { color: #64748b; font-size: .875rem; margin-top: 1.5rem; }
</style>
<main>
  <header><p>This session is at</p><h1 id="name">&hellip;</h1></header>
  <section>
    <dl>
      <div><dt>requests</dt><dd id="requests">0</dd></div>
      <div><dt>moves</dt><dd id="moves">0</dd></div>
      <div><dt>errors</dt><dd id="errors">0</dd></div>
    </dl>
    <div id="past" aria-label="who answered the newest requests"></div>
    <p class="hint">A request each second, through Sluice. Each square is one, in the colour of the server
      that answered. The colour changes when this server dies, and only then.</p>
  </section>
</main>
<script>
  const colors = { COLORS };
  const show = (id, value) => { document.getElementById(id).textContent = value; };
  const count = { requests: 0, moves: 0, errors: 0 };
  const past = document.getElementById("past");
  let own;
  const ask = async () => {
    let name, color = "#dc2626";
    try {
      const answer = await fetch("/who", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      name = (await answer.text()).trim();
      color = colors[name];
      if (own && own !== name) count.moves++;
      own = name;
      document.documentElement.style.setProperty("--own", color);
      document.title = name + " - Sluice demo";
      show("name", name);
    } catch (error) { count.errors++; }
    count.requests++;
    Object.keys(count).forEach((key) => show(key, count[key]));
    const square = document.createElement("i");
    square.style.background = color;
    square.title = name || "no answer";
    past.append(square);
    while (past.childElementCount > 40) past.firstElementChild.remove();
  };
  ask();
  setInterval(ask, 1000);
</script>
</html>
"##;
