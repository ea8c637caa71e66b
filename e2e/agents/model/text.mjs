/** Returns the text of a message's content, which is a string, a part or a list of parts. */
export function textOf(content) {
    if (content === null || content === undefined) {
        return '';
    }
    if (Array.isArray(content)) {
        return content.map(textOf).join('\n');
    }
    return typeof content === 'string' ? content : (content.text ?? JSON.stringify(content));
}
