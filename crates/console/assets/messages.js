// Rewrites error messages of the API for pages: labels of fields replace their API names. A simpler version of
// `plain_text.rs`.

const CAPITALS = new Set(["id", "url", "uri"]);

function label(field) {
  const words = field.split("_").map((word) => (CAPITALS.has(word) ? word.toUpperCase() : word));
  words[0] = words[0].charAt(0).toUpperCase() + words[0].slice(1);
  return words.join(" ").replace(" for agent", " for the agent");
}

/** Fields whose API name is a plain word. Messages about a whole walkthrough contain them. */
const FIELDS = new Set(["content", "description", "tags", "title"]);

/**
 * Returns the message of a problem. A name in backticks becomes the label of the field if it is `field`, contains an
 * underscore, is one of `FIELDS` or is followed by a colon; any other text is quoted.
 */
export function plainMessage(text, field) {
  return text.replace(/`([^`]*)`(: )?/g, (_, inner, colon = "") => {
    const isCertain = inner === field || inner.includes("_") || FIELDS.has(inner) || colon !== "";
    return (/^[a-z_]+$/.test(inner) && isCertain ? label(inner) : `“${inner}”`) + colon;
  });
}
