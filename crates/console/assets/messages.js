// Rewrites error messages of the API for pages, as `plain_text.rs` does: labels of fields instead of their API names.

const CAPITALS = new Set(["id", "url", "uri"]);

function label(field) {
  const words = field.split("_").map((word) => (CAPITALS.has(word) ? word.toUpperCase() : word));
  words[0] = words[0].charAt(0).toUpperCase() + words[0].slice(1);
  return words.join(" ").replace(" for agent", " for the agent");
}

/** Words that continue a sentence that begins with the name of a field, as in "`content`: is empty". */
const PREDICATES = new Set(["is", "has", "contains", "must", "still", "as"]);

/**
 * Returns the message of a problem: names in backticks become labels of fields if they are `field`, have an underscore or are
 * followed by a colon.
 */
export function plainMessage(text, field) {
  return text.replace(/`([^`]*)`(: )?(?=(\S*))/g, (_, inner, colon = "", next = "") => {
    const isField = /^[a-z_]+$/.test(inner) && (inner === field || inner.includes("_") || colon !== "");
    if (!isField) return `“${inner}”${colon}`;
    return label(inner) + (colon && PREDICATES.has(next.replace(",", "")) ? " " : colon);
  });
}
