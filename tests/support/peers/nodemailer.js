// A program that sends the message on its standard input with nodemailer: see clients.py for its arguments.
"use strict";

const fs = require("fs");
const nodemailer = require("nodemailer");

const [host, port, security, username, password, sender, recipients] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host,
    port: Number(port),
    secure: security === "implicit",
    requireTLS: security === "starttls",
    ignoreTLS: security === "none",
    auth: username ? { user: username, pass: password } : undefined,
});

transport
    .sendMail({ envelope: { from: sender, to: recipients.split(",") }, raw: fs.readFileSync(0) })
    .then((info) => {
        for (const error of info.rejectedErrors || []) {
            console.log(`${error.recipient}: ${error.response}`);
        }
    })
    .catch((error) => {
        console.log(`${error.code}: ${error.message}`);
        process.exitCode = 1;
    });
