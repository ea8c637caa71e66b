// The client that the suite starts for each scenario: passes the scenario to the test, which uses the gateway's upstream
// client (tests/conformance/client). usage: client.mjs DRIVER SERVER

const [driver, url] = process.argv.slice(2);
const { MCP_CONFORMANCE_SCENARIO: name, MCP_CONFORMANCE_CONTEXT: context = '{}' } = process.env;
const body = JSON.stringify({ name, url, context: JSON.parse(context) });
const response = await fetch(driver, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
console.log(await response.text());
process.exitCode = response.ok ? 0 : 1;
