// A service without any access control of its own: nginx passes on only what the guard admits.
const { createServer } = require("node:http");

createServer((request, response) => {
  // nginx has replaced whatever the caller sent under this name by what the guard found.
  const client = request.headers["x-grantor-client-id"] ?? "an anonymous caller";
  response.setHeader("Content-Type", "text/plain");
  response.end(`${request.url} for ${client}\n`);
}).listen(8001, "127.0.0.1");
