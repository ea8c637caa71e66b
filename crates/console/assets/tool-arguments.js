// Example arguments for a tool, from the JSON Schema of its input. Independent of the page.

const MAX_DEPTH = 4;

/** Returns a value for a schema: its default, its first choice, or an empty value of its type. */
function exampleOf(schema, depth) {
  if (typeof schema !== "object" || schema === null) return null;
  if (schema.default !== undefined) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (Array.isArray(schema.enum) && schema.enum.length) return schema.enum[0];
  const choice = (schema.anyOf ?? schema.oneOf)?.find?.((one) => one?.type !== "null");
  if (choice && schema.type === undefined) return exampleOf(choice, depth + 1);
  switch ([schema.type].flat().find((type) => type !== "null")) {
    case "string": return "";
    case "integer":
    case "number": return typeof schema.minimum === "number" ? schema.minimum : 0;
    case "boolean": return false;
    case "array": return [];
    case "object": return depth < MAX_DEPTH ? exampleArguments(schema, depth + 1) : {};
    default: return null;
  }
}

/** Returns an object with the required members of a schema. */
export function exampleArguments(schema, depth = 0) {
  const required = Array.isArray(schema?.required) ? schema.required : [];
  const properties = schema?.properties ?? {};
  return Object.fromEntries(required.map((name) => [name, exampleOf(Object.hasOwn(properties, name) ? properties[name] : null, depth)]));
}

/**
 * Parses the arguments that a user entered.
 * @returns {{value?: object, problem?: string}}
 */
export function parseArguments(text) {
  if (text.trim() === "") return { value: {} };
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { problem: `The arguments are not JSON: ${error.message}` };
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? { value } : { problem: 'The arguments must be a JSON object, such as {"query": "text"}.' };
}
