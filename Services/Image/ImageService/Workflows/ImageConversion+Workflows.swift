import Commands
import DiskTool
import ImageCore
import ImageFormat
import Kernel
import WebAPI
import Workflow

/// Conversion of imported data to the format of this cloud.
extension ImageWorkflows {
    /// Replaces the data of an import by its converted form, if it is not in the cloud's format already.
    ///
    /// - Throws: `StepFailure` for data that cannot be converted.
    func convert(_ image: Image, _ frame: inout Frame) async throws {
        let content = try frame.content.recorded("content")
        // Remove the leftovers of an interrupted attempt, unless it was complete and its result is already the content.
        guard content.file != frame.converted else { return }
        try await files.removeLeftover(frame.converted)
        guard let converter = limits.converter, let declared = image.diskFormat, image.containerFormat?.holdsBareDisk == true,
            converter.converts(declared)
        else { return }
        let limit = try await bytesMax(image)
        do {
            let converted = try await converter.convert(
                content.file, declared, to: frame.converted, in: files, bytesMax: limit.bytes, tooLarge: limit.error)
            frame.content = Frame.Content(frame.converted, converted)
            frame.diskFormat = converter.format.rawValue
        } catch let error as ImageRefusal {
            throw StepFailure("The data is not accepted as an image: \(error.reason).")
        } catch let error as ResourceError where error.code == .tooLarge {
            throw StepFailure(error.message)
        } catch let error as CommandError {
            throw StepFailure("The data could not be converted to \(converter.format.rawValue).", details: "\(error)")
        } catch let error as SandboxError {
            throw StepFailure("The data could not be converted to \(converter.format.rawValue).", details: "\(error)")
        }
    }
}
