// Stands for the user's browser where a client opens one: hands the address to the user (tests/support/user.rs).

const answer = await fetch(`${process.env.SIGN_IN_USER}/open?${new URLSearchParams({ url: process.argv[2] })}`);
if (!answer.ok) {
    console.error(await answer.text());
    process.exit(1);
}
