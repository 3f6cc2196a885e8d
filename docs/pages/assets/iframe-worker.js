// Browsers run no workers from a disk, and the search is one: there it runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script src="${new URL(url, document.baseURI)}"></script>`
      this.inner = new Promise((resolve) => frame.addEventListener("load", () => resolve(frame.contentWindow)))
      this.inner.then((inner) => {
        inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      })
      document.body.append(frame)
    }

    async postMessage(data) {
      const inner = await this.inner
      inner.dispatchEvent(new inner.MessageEvent("message", { data }))
    }
  }
}
