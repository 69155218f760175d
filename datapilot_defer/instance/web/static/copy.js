// Copy buttons. Nothing else needs JavaScript, and without it, users can select the text.
const statusLine = document.getElementById("status");

async function copy(text, code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine, the browser provides no clipboard API.
  getSelection().selectAllChildren(code);
  document.execCommand("copy");
}

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    await copy(code.textContent, code);
    button.textContent = "Copied";
    statusLine.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; statusLine.textContent = ""; }, 2000);
  });
}
