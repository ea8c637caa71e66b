// Rewrites error messages of the API for pages, as `plain_text.rs` does: labels of fields instead of their API names.

const CAPITALS = new Set(["id", "url", "uri"]);

function label(field) {
  const words = field.split("_").map((word) => (CAPITALS.has(word) ? word.toUpperCase() : word));
  words[0] = words[0].charAt(0).toUpperCase() + words[0].slice(1);
  return words.join(" ").replace(" for agent", " for the agent");
}

/** Returns the message of a problem: names in backticks become labels of fields if they are `field` or have an underscore. */
export function plainMessage(text, field) {
  return text.replace(/`([^`]*)`/g, (_, inner) => (/^[a-z_]+$/.test(inner) && (inner === field || inner.includes("_")) ? label(inner) : `“${inner}”`));
}
