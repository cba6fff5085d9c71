import { mount } from "svelte";
import "./app.css";
import "./markdown.css";
import App from "./App.svelte";
import { withoutEval } from "./lib/desktop";
import { session } from "./state/session.svelte";

withoutEval(window);
void session.start();

const target = document.getElementById("app");
if (target) mount(App, { target });
