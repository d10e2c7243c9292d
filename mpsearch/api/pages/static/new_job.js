// Upload the files that a new job is made of, before its form is sent with their digests.
"use strict";

const field = (id) => document.getElementById(id);
const hex = (bytes) => Array.from(new Uint8Array(bytes), (b) => b.toString(16).padStart(2, "0")).join("");

async function uploaded(file) {
  field("upload").textContent = `Uploading ${file.name} …`;
  const content = await file.arrayBuffer();
  const name = `sha256:${hex(await crypto.subtle.digest("SHA-256", content))}`;
  const known = await fetch(`/v1/blobs/${name}`, { method: "HEAD" });
  if (!known.ok) {
    const answer = await fetch(`/v1/blobs/${name}`, { method: "PUT", body: content });
    if (!answer.ok) throw new Error((await answer.json()).detail);
  }
  return name;
}

async function uploadAll() {
  const model = {};
  for (const file of field("model-upload").files) model[file.name] = await uploaded(file);
  if (Object.keys(model).length) field("model-files").value = JSON.stringify(model);
  const [samples] = field("calibration-upload").files;
  if (samples) {
    field("calibration-blob").value = await uploaded(samples);
    field("calibration-format").value = samples.name.endsWith(".npz") ? "npz" : "jsonl";
  }
}

field("new-job").addEventListener("submit", (event) => {
  const chosen = field("model-upload").files.length + field("calibration-upload").files.length;
  if (!chosen) return;
  event.preventDefault();
  const form = event.target;
  uploadAll().then(() => form.submit(), (error) => {
    field("upload").textContent = `Not uploaded: ${error.message}`;
  });
});
