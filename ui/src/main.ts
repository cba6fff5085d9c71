import { mount } from "svelte";
import "./app.css";
import "./markdown.css";
import App from "./App.svelte";
import { session } from "./state/session.svelte";

void session.start();

const target = document.getElementById("app");
if (target) mount(App, { target });
