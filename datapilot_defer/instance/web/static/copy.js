// The copy buttons: the only thing here that needs JavaScript; without it the text can be selected.
const statusLine = document.getElementById("status");

async function copy(text, code) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain http to another machine there is no clipboard API.
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
