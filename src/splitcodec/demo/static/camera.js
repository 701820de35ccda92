/** The camera in a dialogue: one frame becomes a picture like any other. */

import { canvasOf } from "./picture.js";
import { $ } from "./view.js";

/** Open the camera; `take` gets the picture as a Blob. Throws a sentence for people where there is no camera. */
export async function openCamera(take) {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives the camera to pages over https or on localhost only. Choose a file instead.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    throw new Error(denied ? "The camera was not allowed. Choose a file instead." : "No camera was found. Choose a file instead.");
  }
  const dialog = $("viewfinder");
  const video = $("video");
  $("shoot").disabled = true; // until there is a frame
  $("close").onclick = () => dialog.close();
  dialog.onclose = () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
  video.onloadeddata = () => {
    $("shoot").disabled = false;
    $("shoot").focus();
  };
  video.srcObject = stream;
  dialog.showModal();
  video.play().catch(() => {}); // closed before it played
  $("shoot").onclick = () => {
    const canvas = canvasOf(video.videoWidth, video.videoHeight);
    canvas.getContext("2d", { alpha: false }).drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob(take, "image/png");
  };
}
