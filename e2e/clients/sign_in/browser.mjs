// Replaces the browser that a client opens: passes the URL to the simulated user (tests/support/user.rs).

const response = await fetch(`${process.env.SIGN_IN_USER}/open?${new URLSearchParams({ url: process.argv[2] })}`);
if (!response.ok) {
    console.error(await response.text());
    process.exit(1);
}
